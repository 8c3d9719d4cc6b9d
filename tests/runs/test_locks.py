"""One process at a time; nobody waits for the dead, and nobody takes from the living."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from audioclf_lib.runs import locks as lease
from audioclf_lib.runs.locks import hold_lease

# How long a test waits for another process before it fails: less than a lease, so that who had to wait one fails too.
PATIENCE = 45


def child(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


HOLD = """
import sys
from pathlib import Path
from audioclf_lib.runs.locks import hold_lease
with hold_lease(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

COUNT = """
import os, sys
from pathlib import Path
from audioclf_lib.runs import locks as lease
lease.POLL_SECONDS = 0.001
marker, counter, times = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for i in range(times):
    with lease.hold_lease(marker):
        counter.write_text(str(int(counter.read_text()) + 1))
        if i == times - 1:
            os._exit(0)  # dies with the lease in its hands
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "fit.lock"


def write_marker(path: Path, host: str = "elsewhere", pid: int = 1, **facts: object) -> None:
    path.write_text(json.dumps({"host": host, "pid": pid, "token": "theirs"} | facts))


def count_polls(monkeypatch: pytest.MonkeyPatch, at_poll: Callable[[int], None] = lambda poll: None) -> list[int]:
    """Waiting takes no time: each pause is counted instead, and ``at_poll`` may do what others do meanwhile."""
    polls: list[int] = []

    def pause(seconds: float) -> None:
        assert seconds == lease.POLL_SECONDS
        polls.append(len(polls) + 1)
        assert len(polls) < 10_000, "waits for ever"
        at_poll(len(polls))

    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=pause))
    return polls


def test_processes_take_turns_and_the_killed_are_followed_at_once(marker: Path, tmp_path: Path) -> None:
    """Each reads a number and writes the next; one that ran beside another would lose a count."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    workers = [child(COUNT, marker, counter, "30") for _ in range(4)]
    for worker in workers:
        worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0
    assert counter.read_text() == "120"
    with hold_lease(marker):
        assert [path.name for path in tmp_path.iterdir() if path != counter] == ["fit.lock"]
    assert not marker.exists()


def test_threads_take_turns_too(marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.001)
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            with hold_lease(marker):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert most == [1]
    assert not marker.exists()


@pytest.mark.parametrize("cleared_away", [True, False])
def test_a_killed_holder_is_followed_at_once(cleared_away: bool, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody clears it away, as in a container without an init process."""
    holder = child(HOLD, marker)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told: list[str] = []

    def kill(poll: int) -> None:
        holder.kill()
        if cleared_away:
            holder.wait()
        else:
            os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)

    polls = count_polls(monkeypatch, kill)
    with hold_lease(marker, told.append):
        assert polls == [1]
        assert told == [f"process {holder.pid} on {socket.gethostname()}"]
    holder.communicate()


def test_a_living_holder_is_waited_for_however_long_and_told_of_once(
    marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600)  # the beats below are those that count
    entered, release, told = threading.Event(), threading.Event(), []

    def hold() -> None:
        with hold_lease(marker):
            entered.set()
            release.wait(PATIENCE)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(PATIENCE)

    def beat(poll: int) -> None:
        if poll == 1_000:
            release.set()
            holder.join()
        elif poll % 10 == 0:
            os.utime(marker, ns=(poll, poll))

    polls = count_polls(monkeypatch, beat)
    with hold_lease(marker, told.append):
        assert len(polls) == 1_000
    assert told == [f"process {os.getpid()} on {socket.gethostname()}"]


def test_a_holder_elsewhere_is_followed_a_lease_after_its_last_beat(
    marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_marker(marker)

    def beat(poll: int) -> None:
        if poll <= 500:
            os.utime(marker, ns=(poll, poll))

    polls = count_polls(monkeypatch, beat)
    told: list[str] = []
    with hold_lease(marker, told.append):
        waited = (len(polls) - 500) * lease.POLL_SECONDS
        assert lease.LEASE_SECONDS <= waited <= lease.LEASE_SECONDS + 2 * lease.POLL_SECONDS
    assert told == ["process 1 on elsewhere"]
    assert not marker.exists()


def test_a_pause_of_the_waiting_process_is_no_pause_of_the_holder(
    marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slept an hour must not think that everybody else is dead: looks are counted, not time."""
    write_marker(marker)
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += 3600
        if clock[0] == 3 * 3600:
            marker.unlink()

    monkeypatch.setattr(lease, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0], time=lambda: clock[0]))
    with hold_lease(marker):
        assert clock[0] == 3 * 3600


def test_a_young_process_with_the_number_of_a_dead_holder_is_not_taken_for_it(
    marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_marker(marker, **lease.identity(os.getpid()) | {"started": 0.0})
    polls = count_polls(monkeypatch)
    with hold_lease(marker):
        assert polls == []


def test_a_clock_that_is_set_makes_nobody_dead(marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil's time of a process's start follows the clock; who waits may have looked at it before or after."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("only Linux says when a process was started without asking a clock")
    write_marker(marker, **lease.identity(os.getpid()))
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) - 3600)
    polls = count_polls(monkeypatch, lambda poll: marker.unlink() if poll == 5 else None)
    with hold_lease(marker):
        assert len(polls) == 5


def test_a_marker_that_does_not_say_when_its_holder_began_blocks_for_a_lease_only(
    marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_marker(marker, socket.gethostname(), os.getpid())
    polls = count_polls(monkeypatch)
    with hold_lease(marker):
        assert len(polls) * lease.POLL_SECONDS == pytest.approx(lease.LEASE_SECONDS, abs=2 * lease.POLL_SECONDS)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"host": "HERE", "pid": "none"}'])
def test_a_damaged_marker_blocks_for_a_lease_only(
    content: bytes, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker.write_bytes(content.replace(b"HERE", socket.gethostname().encode()))
    polls = count_polls(monkeypatch)
    with hold_lease(marker):
        assert len(polls) * lease.POLL_SECONDS == pytest.approx(lease.LEASE_SECONDS, abs=2 * lease.POLL_SECONDS)


def test_who_was_too_slow_to_take_over_takes_nothing_from_who_was_faster(
    marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wait for a dead holder; between one's look and its deed the other takes over."""
    write_marker(marker, socket.gethostname(), 2**22 + 1)  # no process has this number
    is_dead = lease._is_dead_here
    faster: list[bytes] = []

    def be_overtaken(holder: dict[str, object]) -> bool:
        dead = is_dead(holder)
        if dead and not faster:
            marker.unlink()
            write_marker(marker, "elsewhere", 7)
            faster.append(marker.read_bytes())
        return dead

    def leave(poll: int) -> None:
        assert marker.read_bytes() == faster[0], "the faster one's marker was touched"
        if poll == 5:
            marker.unlink()

    monkeypatch.setattr(lease, "_is_dead_here", be_overtaken)
    polls = count_polls(monkeypatch, leave)
    with hold_lease(marker):
        assert len(polls) == 5


def test_a_holder_that_was_overtaken_leaves_the_new_holders_marker(
    marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.001)
    with hold_lease(marker):
        heart = next(thread for thread in threading.enumerate() if thread.name == "lease fit.lock")
        marker.unlink()
        write_marker(marker)
        heart.join(PATIENCE)
        assert not heart.is_alive(), "its heart no longer beats for somebody else"
    assert json.loads(marker.read_text())["token"] == "theirs"


def test_the_heart_beats_while_the_lease_is_held(marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.001)
    beaten, touch = threading.Event(), os.utime
    touched: list[Path] = []

    def note(path: Path) -> None:
        touch(path)
        touched.append(path)
        if len(touched) == 3:
            beaten.set()

    monkeypatch.setattr(lease.os, "utime", note)
    with hold_lease(marker):
        assert beaten.wait(PATIENCE)
    assert set(touched) == {marker}


def test_the_lease_is_released_after_a_failure(marker: Path) -> None:
    with pytest.raises(RuntimeError, match="ours"), hold_lease(marker):
        assert marker.exists()
        raise RuntimeError("ours")
    assert not marker.exists()


def test_a_folder_that_vanishes_meanwhile_hides_no_result(marker: Path) -> None:
    with hold_lease(marker):
        marker.unlink()
        marker.parent.rename(marker.parent.with_name("moved"))


def test_a_marker_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"), hold_lease(tmp_path / "no folder" / "fit.lock"):
        pass
