"""Packages that need not be there, or do not fit: told in one sentence where they are imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

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
    """Raise InputError if one of the modules that ``audioclf[name]`` brings is not installed; imports none of them."""
    for module in modules:
        if find_spec(module) is None:
            raise missing(module, name)


def missing(module: str, extra: str) -> InputError:
    """What is raised where a module of an extra is not installed."""
    return InputError(f"{module} is not installed; `pip install 'audioclf[{extra}]'` brings it")


@contextmanager
def fitting_torchaudio() -> Iterator[None]:
    """Import torchaudio in the block: its wheels load only beside the torch that they were built for.

    Raises:
        InputError: it is another release, or a build for other hardware.
    """
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        from importlib.metadata import version

        import torch

        pair = f"torchaudio {version('torchaudio')} does not load beside torch {torch.__version__}"
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{pair} ({reason}); install the one of the same release, from where torch came") from None
