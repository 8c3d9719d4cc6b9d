"""Compiles ``kernels.c`` with the machine's C compiler, once, and loads it.

The shared library is kept beside the other caches under a name that changes with the source, the flags and the
processor. No compiler, or a failed compilation, is no error: the reference modules do the same work, slower.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

from audioclf_lib._support.digests import digest
from audioclf_lib._support.paths import DEFAULT_DATA_DIR

SOURCE = Path(__file__).with_name("kernels.c")
# The processor's own instructions; contracted multiply-adds; nothing that changes what NaN and infinity mean.
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared")
CACHE = DEFAULT_DATA_DIR / "cache"


class DropoutArguments(ctypes.Structure):
    """``Dropout`` of kernels.c."""

    _fields_ = (
        ("key_low", ctypes.c_uint32),
        ("key_high", ctypes.c_uint32),
        ("threshold", ctypes.c_uint32),
        ("scale", ctypes.c_float),
    )


# Arguments of the functions of kernels.c: pointers, counts, flags, element numbers, dropout.
TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "f": ctypes.c_int, "e": ctypes.c_uint32}
TYPES["d"] = ctypes.POINTER(DropoutArguments)
SIGNATURES = {
    "patch_moments": "pnnppp",
    "stem_forward": "pnnppedffppp",
    "stem_backward": "pnnppppp",
    "channel_moments": "pnnpp",
    "norm_pool_forward": "pnnppedffpp",
    "norm_pool_gradient_sums": "pnnppp",
    "norm_pool_backward": "pnnpppppp",
    "dropout": "pnedp",
}


@functools.cache
def load_kernels() -> ctypes.CDLL | None:
    """The compiled kernels, or None (after one warning that says why) where they cannot be had."""
    try:
        library = ctypes.CDLL(str(compile_kernels(find_compiler())))
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        reason = output.strip().splitlines()[0] if output.strip() else type(error).__name__
        warnings.warn(
            f"the fast path is off, training takes several times longer: {reason} (a C compiler, named by CC or found "
            "as cc, gcc or clang, switches it on)",
            stacklevel=2,
        )
        return None
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = [TYPES[letter] for letter in arguments], None
    return library


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next batch, where it is glibc.

    By default every large tensor is mapped anew, and the system clears its pages again for each batch; that costs about
    as much as the fast path's own work.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    with suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


def find_compiler() -> list[str]:
    """The C compiler's command: ``$CC``, else cc, gcc or clang.

    Raises:
        FileNotFoundError: there is none.
    """
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    raise FileNotFoundError("no C compiler found")


def compile_kernels(compiler: list[str], cache: Path = CACHE) -> Path:
    """Compile the kernels unless the cache holds them; returns the shared library's path.

    Raises:
        subprocess.CalledProcessError: the compiler refused; OSError: it could not be started.
    """
    key = [SOURCE.read_text(encoding="utf-8"), *compiler, *FLAGS, _processor()]
    name = f"kernels-{digest(chr(0).join(key), 16)}.so"
    library = cache / name if (cache / name).exists() else _writable(cache) / name
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        draft = Path(folder) / name
        command = [*compiler, *FLAGS, "-o", str(draft), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        os.replace(draft, library)
    return library


def _writable(cache: Path) -> Path:
    """``cache``, or the user's own folder for caches where that cannot be written, or a fresh folder.

    Never a folder for temporary files that others can write in: a library from there would run what they put into it.
    """
    import pooch  # here, since a second spent on it is seldom needed

    for folder in (cache, Path(pooch.os_cache("audioclf"))):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    return Path(tempfile.mkdtemp(prefix="audioclf-"))


def _processor() -> str:
    """What ``-march=native`` depends on: the processor's name and abilities, as far as the system tells them."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return f"{platform.machine()} {platform.processor()}"
    lines = info.read_text(encoding="utf-8").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
