"""A lock whose holder may vanish: one process at a time works on a fit, and nobody waits for the dead.

The holder creates a marker file that no other process can create, and renews it with a heartbeat. Who waits takes
over when the recorded process no longer lives on this machine, or when the marker has not changed for a whole lease
on the waiting process's own monotonic clock, so that neither a clock that jumps nor two clocks that differ matter.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

LEASE_SECONDS = 60.0
HEARTBEAT_SECONDS = 5.0
POLL_SECONDS = 0.5


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
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        if _read(path).get("token") == token:
            path.unlink(missing_ok=True)


def _acquire(path: Path, token: str, on_wait: Callable[[str], None] | None) -> None:
    seen, seen_since, told = "", time.monotonic(), False
    while not _create(path, token, beat=0):
        content = _content(path)
        if content != seen:
            seen, seen_since = content, time.monotonic()
        holder = _parse(content)
        if _is_dead_here(holder) or time.monotonic() - seen_since > LEASE_SECONDS:
            _remove_stale(path, content)
            continue
        if on_wait is not None and not told:
            on_wait(f"process {holder.get('pid', '?')} on {holder.get('host', '?')}")
            told = True
        time.sleep(POLL_SECONDS)


def _create(path: Path, token: str, beat: int) -> bool:
    """Create the marker with its content in one step (a hard link fails if the name exists)."""
    draft = path.with_name(f"{path.name}.{token}")
    draft.write_text(_marker(token, beat))
    try:
        os.link(draft, path)
        return True
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)


def _marker(token: str, beat: int) -> str:
    process = psutil.Process()
    holder = {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}
    return json.dumps(holder | {"token": token, "beat": beat})


def _beat(path: Path, token: str, done: threading.Event) -> None:
    """Renew the marker until ``done``; stop at once if somebody else took the lease over."""
    beat = 0
    while not done.wait(HEARTBEAT_SECONDS):
        if _read(path).get("token") != token:
            return
        beat += 1
        draft = path.with_name(f"{path.name}.{token}")
        with suppress(OSError):  # a full disk must not end the fit; the next beat may succeed
            draft.write_text(_marker(token, beat))
            os.replace(draft, path)


def _is_dead_here(holder: dict[str, object]) -> bool:
    """Whether the holder ran on this machine and is gone (or its number belongs to a younger process)."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        return psutil.Process(int(str(holder["pid"]))).create_time() != holder["started"]
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return True


def _remove_stale(path: Path, content: str) -> None:
    """Remove the marker, unless it changed meanwhile: only one of those who wait gets it renamed away."""
    grave = path.with_name(f"{path.name}.stale-{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        os.rename(path, grave)
        if _content(grave) != content:  # a live holder's: put it back
            with suppress(FileExistsError):
                os.link(grave, path)
        grave.unlink(missing_ok=True)


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _parse(content: str) -> dict[str, object]:
    try:
        parsed = json.loads(content)
    except json.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _read(path: Path) -> dict[str, object]:
    return _parse(_content(path))
