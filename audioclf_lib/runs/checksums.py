"""SHA-256 sums of a folder's files, as ``sha256sum --check`` reads them: they find what a disk or a copy changed."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

SUMS = "SHA256SUMS"


def sum_of(content: bytes | memoryview) -> str:
    """The SHA-256 sum of a content, in hexadecimal digits."""
    return sha256(content).hexdigest()


def sum_line(name: str, content: bytes) -> bytes:
    """The line of ``SHA256SUMS`` for a file."""
    return f"{sum_of(content)}  {name}\n".encode()


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the sums of a folder's files into its ``SHA256SUMS``."""
    (folder / SUMS).write_bytes(b"".join(sum_line(name, (folder / name).read_bytes()) for name in names))
