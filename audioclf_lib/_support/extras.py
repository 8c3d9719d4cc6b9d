"""Packages that need not be there, or do not fit: told in one sentence where they are imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
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
        raise missing(str(error.name), name) from None


def require_extra(name: str, *modules: str) -> None:
    """Raise InputError if one of the modules that ``audioclf[name]`` brings is not installed; imports none of them.

    Args:
        name: of the extra; ``none`` needs nothing.
        modules: to be imported; the one of that name unless given.
    """
    for module in () if name == "none" else modules or (name,):
        if find_spec(module) is None:
            raise missing(module, name)


def missing(module: str, extra: str) -> InputError:
    """What is raised where a module of an extra is not installed."""
    return InputError(f"{module} is not installed; `pip install 'audioclf[{extra}]'` brings it")


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
