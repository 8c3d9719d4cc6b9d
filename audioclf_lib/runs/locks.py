"""A lock whose holder may vanish: one process at a time works on a fit, and nobody waits for the dead.

The holder's marker file says who it is, and its heartbeat touches the file. Who waits takes over when the recorded
process no longer lives on this machine, or when the marker stayed the same over a whole lease of looks at it. Looks
are counted instead of reading a clock, so that neither clocks that jump or differ nor a machine that slept matter.

A holder that is frozen for a lease and then wakes finds itself beside the one that took over: what is done under a
lease must bear being done twice, as writing a run folder in one step does.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from operator import eq
from pathlib import Path
from typing import TextIO

import psutil

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 5.0
POLL_SECONDS = 0.5

# A marker's text and its time of change: who holds the lease, and whether the heart still beats.
Marker = tuple[str, int]


@contextmanager
def hold_lease(path: Path, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lease ``path`` while the block runs; wait for another holder first.

    Args:
        path: the marker file; its folder must exist.
        on_wait: called once with the other holder's description when this process has to wait.

    Raises:
        OSError: the marker cannot be written.
    """
    token = uuid.uuid4().hex
    _acquire(path, token, on_wait)
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, token, done), daemon=True, name=f"lease {path.name}")
    try:
        heart.start()
        yield
    finally:
        done.set()
        if heart.ident is not None:
            heart.join()
        with suppress(OSError):  # a marker that stays ends with its process or its lease
            _remove(path, lambda marker: _holder(marker).get("token") == token)


def _acquire(path: Path, token: str, on_wait: Callable[[str], None] | None) -> None:
    seen: Marker | None = None
    unchanged, told = 0, False
    while not _create(path, token):
        marker = _look(path)
        if marker is None:  # released just now
            continue
        unchanged = unchanged + 1 if marker == seen else 0
        seen = marker
        holder = _holder(marker)
        if _is_dead_here(holder) or unchanged * POLL_SECONDS > LEASE_SECONDS:
            _remove(path, partial(eq, marker))
            continue
        if on_wait is not None and not told:
            on_wait(f"process {holder.get('pid', '?')} on {holder.get('host', '?')}")
            told = True
        time.sleep(POLL_SECONDS)


def _create(path: Path, token: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(identity(os.getpid()) | {"token": token}, file)
    except FileExistsError:
        return False
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _remove(path: Path, unwanted: Callable[[Marker], bool]) -> None:
    """Remove the marker if it is ``unwanted``, and no other that takes its place meanwhile.

    Only who locks the file may remove it, and only while it is the one of that name. The system drops the lock when
    the file is closed or the process dies.
    """
    with suppress(FileNotFoundError), path.open("r+", encoding="utf-8", errors="replace") as file:
        with suppress(OSError):  # some file servers know no locks; then two that take over at once may collide
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()) and unwanted(_read(file)):
            path.unlink()


def _beat(path: Path, token: str, done: threading.Event) -> None:
    """Touch the marker until ``done``; stop if somebody else took the lease over."""
    while not done.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):  # a file server that is away must not end the fit; the next beat may succeed
            if _holder(_look(path)).get("token") != token:
                return
            os.utime(path)


def identity(pid: int) -> dict[str, object]:
    """What tells a process from all others, also from a later one with the same number.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def _started(pid: int) -> float:
    """When a process was started: under Linux since the system was, so that setting the clock changes nothing."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # its name may hold anything
        return float(fields[19])
    except (OSError, IndexError, ValueError):
        return psutil.Process(pid).create_time()


def _is_dead_here(holder: dict[str, object]) -> bool:
    """Whether the holder ran on this machine and is gone, or killed and not yet cleared away by its parent."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        pid = int(str(holder.get("pid")))
        is_another = "started" in holder and holder["started"] != _started(pid)
        return is_another or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError):
        return False


def _look(path: Path) -> Marker | None:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _read(file)
    except FileNotFoundError:
        return None


def _read(file: TextIO) -> Marker:
    return file.read(), os.fstat(file.fileno()).st_mtime_ns


def _holder(marker: Marker | None) -> dict[str, object]:
    """What a marker says of its holder; nothing if there is none or it is damaged."""
    try:
        holder = json.loads(marker[0]) if marker else {}
    except json.JSONDecodeError:
        return {}
    return holder if isinstance(holder, dict) else {}
