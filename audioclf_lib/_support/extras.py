"""Packages that need not be there, or do not fit: told in one sentence where they are imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from audioclf_lib._support.errors import InputError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import in the block what pip installs with ``audioclf[name]``.

    Raises:
        InputError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; `pip install 'audioclf[{name}]'` brings it") from None


def load_torchaudio() -> Any:
    """Import torchaudio, whose wheels load only beside the torch that they were built for.

    Raises:
        InputError: it is another release, or a build for other hardware.
    """
    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        remedy = "install the one of torch's release, from where torch came"
        raise InputError(f"torchaudio does not load beside this torch ({reason}); {remedy}") from None
    return torchaudio
