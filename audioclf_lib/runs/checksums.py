"""Whether files still hold what was written: SHA-256 sums of a folder's files, or one in the head of a single file.

A sum finds every byte that a bad disk, a bad copy or a power cut changed, also where the file can still be parsed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path

SUMS = "SHA256SUMS"  # as `sha256sum` writes and checks it
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)\n")
_SEAL = re.compile(rb"sha256 ([0-9a-f]{64})\n")
_SEAL_LENGTH = len(b"sha256 ") + 64 + 1


def write_sums(folder: Path, names: Collection[str]) -> None:
    """Write the sums of a folder's files into its ``SHA256SUMS``."""
    sums = {name: sum_of((folder / name).read_bytes()) for name in names}
    (folder / SUMS).write_bytes(_as_text(sums).encode())


def read_sums(folder: Path, names: Collection[str]) -> dict[str, str] | None:
    """The sum of each file by its name; None if the folder has none, as those written before there were sums.

    Raises:
        ValueError: it is no list of sums of just these names.
    """
    try:
        text = (folder / SUMS).read_bytes().decode()
    except FileNotFoundError:
        return None
    sums = {name: value for value, name in _LINE.findall(text)}
    if text != _as_text(sums) or sums.keys() != set(names):
        raise ValueError(f"it does not list the sums of {', '.join(names)}")
    return sums


def _as_text(sums: Mapping[str, str]) -> str:
    return "".join(f"{value}  {name}\n" for name, value in sums.items())


def sum_of(content: bytes | memoryview) -> str:
    """The SHA-256 sum of a content, in hexadecimal digits."""
    return sha256(content).hexdigest()


def seal(content: bytes | memoryview) -> bytes:
    """The content with its sum in front."""
    return b"".join((b"sha256 ", sum_of(content).encode(), b"\n", content))


def unseal(sealed: bytes) -> bytes:
    """The content that was sealed.

    Raises:
        ValueError: it is not what was sealed.
    """
    head, content = sealed[:_SEAL_LENGTH], sealed[_SEAL_LENGTH:]
    match = _SEAL.fullmatch(head)
    if match is None or match[1].decode() != sum_of(content):
        raise ValueError("its bytes are not those that were written")
    return content
