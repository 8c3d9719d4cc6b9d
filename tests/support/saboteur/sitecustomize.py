"""Loaded by every Python process of a suite under test: counts its file operations, and does harm at one of them.

``AUDIOCLF_SABOTAGE`` is a JSON object; see ``Sabotage`` in ``tests/nothing_lost.py``. Operations are those that change
something below its ``root``; Python's audit hooks tell of each just before it is done, so that a process can be ended
between any two of them, and a delay lets it end in the middle of one.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def role_of(command: list[str]) -> str:
    """Which of a suite's processes has this command line; empty for shells and the like."""
    text = " ".join(command)
    if not command or "python" not in Path(command[0]).name:
        return ""
    for role, sign in {
        "kernel": "ipykernel_launcher",
        "papermill": "audioclf_lib.suite.notebooks",
        "suite": "audioclf_lib.cli",
    }.items():
        if sign in text:
            return role
    return "snakemake" if "audioclf_lib.suite.locked_snakemake" in text else "job"


def processes(token: str) -> dict[int, str]:
    """All processes that were started under this sabotage, with their roles."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if token.encode() in (entry / "environ").read_bytes():
                    command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    found[int(entry.name)] = role_of(command)
            except OSError:  # it is gone
                pass
    return found


class Saboteur:
    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.root = order["root"].rstrip("/")
        self.role = role_of(sys.orig_argv)
        self.record = os.open(order["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.busy = self.is_late = False

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or self.busy or self.role not in self.order["counted"]:
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else ""
        if not path.startswith(self.root):
            return
        self.busy = True
        try:
            os.write(self.record, f"{self.role} {event} {path[len(self.root) :]}\n".encode().ljust(300)[:299] + b"\n")
            if os.fstat(self.record).st_size // 300 == self.order["moment"]:
                self.strike()
            elif self.order["deed"] == "turn_back" and Path(self.order["record"] + ".struck").exists():
                self.act()  # one clock for all
        finally:
            self.busy = False

    def strike(self) -> None:
        if self.order["delay"]:
            threading.Timer(self.order["delay"], self.act).start()
        else:
            self.act()

    def act(self) -> None:
        Path(self.order["record"] + ".struck").touch()
        getattr(self, self.order["deed"])()

    def kill(self) -> None:
        """Send a signal to every process of the target's role; to this one last."""
        target, number = self.order["target"], self.order["signal"]
        others = processes(self.order["token"])
        for pid, role in others.items():
            if target in ("everything", role):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        if target in ("everything", self.role):
            os.kill(os.getpid(), number)

    def fill(self) -> None:
        """Leave no byte free on the disk that holds the root."""
        with Path(self.root, "ballast").open("wb", buffering=0) as ballast:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        ballast.write(b"x" * size)

    def starve(self) -> None:
        """Let this process have hardly more memory than it has, and need more in the midst of what it does."""
        more = 1 << 28
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)
        bytearray(2 * more)

    def turn_back(self) -> None:
        """Turn this process's clock back by a day; every process of the suite does so at its next operation."""
        if not self.is_late:
            self.is_late, now, now_ns = True, time.time, time.time_ns
            time.time = lambda: now() - 86_400
            time.time_ns = lambda: now_ns() - 86_400 * 10**9


if "AUDIOCLF_SABOTAGE" in os.environ:
    sys.addaudithook(Saboteur(json.loads(os.environ["AUDIOCLF_SABOTAGE"])).watch)
