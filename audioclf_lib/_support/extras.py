"""Packages that not everybody needs: the extras of ``pyproject.toml``."""

from __future__ import annotations

from importlib.util import find_spec

from audioclf_lib._support.errors import InputError


def require_extra(extra: str, *modules: str) -> None:
    """Raise InputError, with the command that installs them, if one of an extra's modules is missing.

    Args:
        extra: its name; ``none`` needs nothing.
        modules: to be imported; the one of that name unless given.
    """
    for name in () if extra == "none" else modules or (extra,):
        if find_spec(name) is None:
            raise InputError(f"{extra} needs {name}, which is not installed; install it: `pip install -e '.[{extra}]'`")
