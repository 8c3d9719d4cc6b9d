"""A lock on a file: one process at a time trains a fit, runs a notebook or a suite, or downloads a data set.

It is the kernel's lock, by way of ``filelock``: released when its holder dies, in every container of a host, and on NFS
when the server no longer hears from the holder's host. flufl.lock needs a heartbeat and clocks that agree instead.

A holder whose host NFS gave up may wake up beside the next one: what is done under the lock must bear being done twice,
as writing a run folder in one step does.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from audioclf_lib._support.errors import one_line
from audioclf_lib._support.paths import explained

POLL_SECONDS = 0.5


@contextmanager
def hold_lock(
    path: Path,
    on_wait: Callable[[str], None] | None = None,
    remedy: str = "free space or choose a folder elsewhere",
) -> Iterator[None]:
    """Hold the lock while the block runs; wait for another holder first.

    A thread that asks for a lock that it holds gets a RuntimeError.

    Args:
        path: the lock file; made with its folder, removed on release. One that a killed holder left locks nobody out.
        on_wait: called once with ``process 12 on my-host`` if another process or thread holds the lock.
        remedy: what the message advises where the file cannot be locked.

    Raises:
        InputError: the file cannot be opened or made, is a symbolic link, or lies on a file system without locks.
    """
    held: list[int] = []

    def note_holder(descriptor: int) -> None:
        held.append(descriptor)
        with suppress(OSError):  # a full disk: the lock holds without the description
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"\nprocess {os.getpid()} on {socket.gethostname()}".encode())

    lock = FileLock(path, poll_interval=POLL_SECONDS, fallback_to_soft=False, on_acquired=note_holder)
    with explained(path, remedy, fault="cannot lock"):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if on_wait is not None:
                on_wait(_holder(path))
            lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # a lock file that stays does no harm; Windows lets filelock alone remove it
            if _is_at(held[-1], path):
                path.unlink()  # while it is locked: whoever locks it later finds it without a name and tries again
        with suppress(OSError):  # a file server that is away; the lock ends with the process
            lock.release()


def _is_at(descriptor: int, path: Path) -> bool:
    """True if the open file is the one at ``path``, which is opened again since NFS asks its server only then."""
    try:
        with path.open("rb") as file:
            return os.path.samestat(os.fstat(file.fileno()), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """What the holder wrote behind the file's first byte, which Windows lets nobody else read; for messages only."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(1)
            return one_line(file.read(200).decode(errors="replace")) or "another process"
    except OSError:
        return "another process"
