"""Where and with what a fit is trained: the device, and what ``environment.json`` says of each process."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from importlib.metadata import version
from typing import Any

import torch

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import CHECKOUT

# How the network was computed: by the kernels of ``accelerate``, or by the modules of ``models`` themselves.
COMPILED, REFERENCE = "compiled kernels", "reference modules"
OLDEST_TORCH = "2.6"
PACKAGES = ("torch", "torchaudio", "numpy", "pandas", "scikit-learn", "audioclf")


def choose_device(name: str = "auto") -> torch.device:
    """The device to train on: ``"auto"`` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: the device is not present, or torch is too old.
    """
    if torch.__version__ < OLDEST_TORCH:  # as versions, not as text
        raise InputError(f"torch {torch.__version__} is too old for audioclf; install {OLDEST_TORCH} or newer")
    known = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    present = [device for device, there in known.items() if there]
    if name not in ("auto", *present):
        raise InputError(f"device {name!r} is not present; choose auto or one of {', '.join(present)}")
    return torch.device(present[0] if name == "auto" else name)


def describe_process(device: torch.device, path: str, *, first_epoch: int) -> dict[str, Any]:
    """One process that trains a fit or a part of it.

    Args:
        device: that it computes on.
        path: ``COMPILED`` or ``REFERENCE``.
        first_epoch: that it trains, from 1; one more than the fit has if none is left.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "path": path,
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
        "commit": commit,
        "clean": None if changes is None else changes == "",
        "first_epoch": first_epoch,
        "last_epoch": first_epoch - 1,
    }


def _git(*arguments: str) -> str | None:
    """What git prints about this library's checkout; None where it is installed in another way."""
    if CHECKOUT is None:
        return None
    try:
        command = ["git", "-C", str(CHECKOUT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
