"""One process at a time; nobody waits for the dead, and nobody takes from the living."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import filelock
import pytest
from conftest import PROJECT_ROOT

from audioclf_lib._support import locks
from audioclf_lib._support.errors import InputError
from audioclf_lib._support.locks import hold_lock

PATIENCE = 60  # how long a test waits for another process before it fails


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fit.lock"


def child(code: str, *arguments: str | Path, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", code, *map(str, arguments)]
    # The module on its own starts in a tenth of the time that its package needs for pandas.
    search = os.pathsep.join([str(PROJECT_ROOT), str(Path(locks.__file__).parent)])
    environment = os.environ | {"PYTHONPATH": search}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


HOLD = """
import sys
from pathlib import Path
import locks
with locks.hold_lock(Path(sys.argv[1]), lambda holder: print("waits for", holder, flush=True)):
    print("held", flush=True)
    sys.stdin.read()
"""

COUNT = """
import os, sys
from pathlib import Path
import locks
locks.POLL_SECONDS = 0.001
path, counter, times = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for i in range(times):
    with locks.hold_lock(path):
        counter.write_text(str(int(counter.read_text()) + 1))
        if i == times - 1:
            os._exit(0)  # dies with the lock in its hands
"""


def count_together(path: Path, folder: Path, before: Sequence[str] = ()) -> None:
    """Each process reads a number and writes the next; one that ran beside another would lose a count."""
    counter = folder / "counter"
    counter.write_text("0")
    workers = [child(COUNT, path, counter, "40", before=before) for _ in range(4)]
    for worker in workers:
        worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0
    assert counter.read_text() == "160"


def test_processes_take_turns_and_the_killed_are_followed_at_once(path: Path, tmp_path: Path) -> None:
    count_together(path, tmp_path)
    with hold_lock(path):
        assert {each.name for each in tmp_path.iterdir()} == {"counter", "fit.lock"}
    assert not path.exists()


def in_a_container() -> list[str]:
    """A command prefix: process numbers of its own, the same host name, the same files; as two containers have it."""
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs root and unshare (Linux), to make namespaces of process numbers")
    return prefix


def test_containers_with_one_host_name_and_equal_process_numbers_take_turns(path: Path, tmp_path: Path) -> None:
    """In each namespace the process has the number 1; the others' 1 is alive, or seems to be."""
    count_together(path, tmp_path, before=in_a_container())


def test_a_holder_in_another_container_is_waited_for_and_followed_when_it_is_killed(path: Path) -> None:
    prefix = in_a_container()
    holder = child(HOLD, path, before=prefix)
    assert read_line(holder) == "held\n"
    waiting = child(HOLD, path, before=prefix)
    assert read_line(waiting) == f"waits for process 1 on {socket.gethostname()}\n"
    holder.kill()
    assert read_line(waiting) == "held\n"
    waiting.communicate()
    assert not path.exists()


def test_a_killed_holder_is_followed_while_another_waits(path: Path) -> None:
    holder = child(HOLD, path)
    assert read_line(holder) == "held\n"
    waiting = child(HOLD, path)
    assert read_line(waiting) == f"waits for process {holder.pid} on {socket.gethostname()}\n"
    holder.send_signal(signal.SIGKILL)
    assert read_line(waiting) == "held\n"
    waiting.communicate()
    assert (holder.wait(), waiting.returncode) == (-9, 0)


def test_a_holder_that_is_frozen_keeps_the_lock(path: Path) -> None:
    holder = child(HOLD, path)
    assert read_line(holder) == "held\n"
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(LookupError), hold_lock(path, refuse_to_wait):
        pass
    holder.kill()
    holder.communicate()


def refuse_to_wait(holder: str) -> None:
    raise LookupError(holder)


def test_one_that_does_not_want_to_wait_leaves_the_holders_file(path: Path) -> None:
    holder = child(HOLD, path)
    assert read_line(holder) == "held\n"
    before = path.stat().st_ino
    for _ in range(3):
        with pytest.raises(LookupError, match=f"process {holder.pid} on"), hold_lock(path, refuse_to_wait):
            pass
    assert path.stat().st_ino == before
    holder.communicate()
    with hold_lock(path, refuse_to_wait):
        pass


def test_threads_take_turns_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.001)
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            with hold_lock(path):
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
    assert not path.exists()


def test_a_thread_that_asks_for_its_own_lock_is_told_so_instead_of_waiting_for_ever(path: Path) -> None:
    with hold_lock(path), pytest.raises(RuntimeError, match="already held"), hold_lock(path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"\nprocess 1 on elsewhere", b"\n\x1b[2J" * 1000])
def test_what_stands_in_a_file_that_was_left_behind_locks_nobody_out(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with hold_lock(path, refuse_to_wait):
        assert path.read_text() == f"\nprocess {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "another process"), (b"\n\xff\x1b[2J\nmine", "\ufffd\\x1b[2J mine"), (b"\nx" * 300, "x" * 9)],
)
def test_what_the_holder_wrote_is_shown_and_decides_nothing(content: bytes, told: str, path: Path) -> None:
    holder = child(HOLD, path)
    assert read_line(holder) == "held\n"
    path.write_bytes(content)
    with pytest.raises(LookupError) as error, hold_lock(path, refuse_to_wait):
        pass
    assert str(error.value.args[0]).replace(" ", "").startswith(told.replace(" ", ""))
    assert len(error.value.args[0]) <= 200
    holder.communicate()


def test_a_lock_file_that_was_removed_before_it_was_locked_is_not_taken_for_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the last holder removes the file and another process makes a new one."""
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.001)
    flock, removed = fcntl.flock, []

    def be_overtaken(descriptor: int, operation: int) -> None:
        if not removed:
            path.unlink()
            path.write_text("another holder's")
            removed.append(os.fstat(descriptor).st_ino)
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", be_overtaken)
    with hold_lock(path):
        assert path.stat().st_ino != removed[0]
        assert f"process {os.getpid()}" in path.read_text(), "the file that is there is the one that is locked"
    assert not path.exists()


def test_a_lock_file_that_another_one_replaced_is_left_alone(path: Path) -> None:
    """Say, a user removed the file while it was held, and another process locked a new one."""
    with hold_lock(path):
        path.unlink()
        path.write_text("another holder's")
    assert path.read_text() == "another holder's"


def test_a_process_without_free_file_descriptors_says_so_and_deletes_no_other_holders_file(path: Path) -> None:
    holder = child(HOLD, path)
    assert read_line(holder) == "held\n"
    inode = path.stat().st_ino
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    opened = []
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
        # One descriptor at a time becomes free: whichever of the files cannot be opened, nothing is deleted.
        for _ in range(4):
            with pytest.raises((InputError, LookupError)), hold_lock(path, refuse_to_wait):
                pass
            os.close(opened.pop())
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert path.stat().st_ino == inode
    holder.communicate()


@pytest.mark.parametrize("target", ["missing", "there"])
def test_a_symbolic_link_as_the_lock_file_is_refused(target: str, path: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    path.symlink_to(tmp_path / target)
    with (
        pytest.raises(InputError, match=r"^cannot lock .*fit\.lock: Too many levels of symbolic links; "),
        hold_lock(path),
    ):
        pass
    assert {each.name for each in tmp_path.iterdir()} == {"fit.lock", "there"}
    assert (tmp_path / "there").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOSPC])
def test_a_file_system_without_locks_is_named(number: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(InputError) as error, hold_lock(path):
        pass
    assert str(error.value) == f"cannot lock {path}: {os.strerror(number)}; free space or choose a folder elsewhere"


def test_a_disk_that_takes_no_byte_does_not_keep_anybody_from_working(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(locks.os, "write", refuse)
    with hold_lock(path):
        with pytest.raises(LookupError, match="another process"):
            run_in_thread(lambda: enter_once(path))
        assert path.read_bytes() == b""
    assert not path.exists()


def enter_once(path: Path) -> None:
    with hold_lock(path, refuse_to_wait):
        pass


def run_in_thread(work: Callable[[], None]) -> None:
    """Work in another thread; what it raises is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    if raised:
        raise raised[0]


def test_the_lock_is_released_after_a_failure(path: Path) -> None:
    with pytest.raises(RuntimeError, match="ours"), hold_lock(path):
        assert path.exists()
        raise RuntimeError("ours")
    assert not path.exists()


def test_a_folder_that_vanishes_meanwhile_hides_no_result(path: Path) -> None:
    with hold_lock(path):
        path.unlink()
        path.parent.rename(path.parent.with_name("moved"))


def test_a_file_server_that_is_away_at_the_end_hides_no_result(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with hold_lock(path):
        monkeypatch.setattr(filelock.FileLock, "release", refuse)
    monkeypatch.undo()


def test_the_folder_of_the_lock_file_is_made(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "new" / "fit.lock"):
        assert (tmp_path / "new" / "fit.lock").exists()


def test_a_lock_in_a_place_that_is_no_folder_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"^cannot lock .*file/fit\.lock: "), hold_lock(tmp_path / "file" / "fit.lock"):
        pass
