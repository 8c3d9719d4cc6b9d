"""The command line in this process, and what it leaves on disk."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest

from audioclf_lib import cli


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run ``audioclf``; its exit code."""
    monkeypatch.setattr(sys, "argv", ["audioclf", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def snapshot(folder: Path) -> dict[str, object]:
    """All that is below a folder: of files the time of change, the size and a hash, of links where they lead."""
    seen: dict[str, object] = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            status = path.lstat()
            facts: object = stat.filemode(status.st_mode)
            if stat.S_ISREG(status.st_mode):
                facts = (facts, status.st_mtime_ns, status.st_size, hashlib.sha256(path.read_bytes()).hexdigest())
            elif stat.S_ISLNK(status.st_mode):
                facts = (facts, str(path.readlink()))
            seen[path.relative_to(folder).as_posix()] = facts
    return seen
