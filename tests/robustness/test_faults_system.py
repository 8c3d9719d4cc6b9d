"""A disk that is full or read-only, memory that runs out, clocks that jump, and locks of holders that vanished.

Each ends in words that name the culprit; once it is put right, the next start finishes and nothing is lost.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROJECT_ROOT
from nothing_lost import Sabotage, Workplace, assert_nothing_lost, small_disk
from same_numbers import assert_same_numbers
from standins import wait_until
from synthetic import write_runs
from tiny import make_dataset, make_fit

from audioclf_lib._support.errors import InputError
from audioclf_lib.runs.store import CHECKPOINT, PREDICTIONS, RunStore
from audioclf_lib.suite.plan import Plan, save_plan
from audioclf_lib.training.trainer import fit

pytestmark = pytest.mark.nothing_lost

FULL, READ_ONLY = "No space left on device", "Read-only file system"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "16m") as folder:
        yield folder


def count_of(operation: str, undisturbed: Workplace, roles: tuple[str, ...]) -> int:
    """At which of these processes' operations the undisturbed suite did for the first time what the text says."""
    (record,) = undisturbed.folder.glob("operations-????????????????????????????????")
    counted = [line for line in record.read_text().splitlines() if line.startswith(roles)]
    return next(number for number, line in enumerate(counted, start=1) if operation in line)


# What is about to be written when the disk is full; by whom; and whose operations are counted until then.
WRITTEN: dict[str, tuple[str, str]] = {
    "checkpoint": (CHECKPOINT, "kernel"),
    "history": ("history.csv", "kernel"),
    "weights": ("weights.safetensors", "kernel"),
    "notebook": (".part.ipynb", "papermill"),
    "status": (".status.json", "papermill"),
    "plan": (".plan.yaml", "everything"),
}


@pytest.mark.faults
@pytest.mark.parametrize("what", WRITTEN)
def test_a_full_disk_is_named_and_the_suite_goes_on_when_there_is_space(
    what: str, disk: Path, tmp_path: Path, undisturbed: Workplace
) -> None:
    operation, target = WRITTEN[what]
    roles = {"kernel": ("kernel",), "papermill": ("kernel", "papermill")}.get(target, ("",))
    place = Workplace.make(tmp_path / "suite", runs_dir=disk)
    end = place.start(Sabotage(target, count_of(operation, undisturbed, roles), deed="fill"))
    assert end.struck
    assert end.code in (1, 2)
    assert FULL in end.out + end.err
    assert "Traceback" not in end.out + end.err
    (disk / "ballast").unlink()
    place.finish()
    assert_nothing_lost(place, undisturbed)


@pytest.mark.usefixtures("one_thread")
def test_a_fit_that_finds_no_space_for_any_of_its_files_keeps_its_checkpoint(disk: Path, tmp_path: Path) -> None:
    """Page by page, so that the disk is full in the midst of each file, predictions and weights too."""
    dataset = make_dataset()
    config = make_fit(dataset)
    undisturbed = fit(config, dataset, runs_dir=tmp_path / "undisturbed", device="cpu")
    needed = sum(path.stat().st_size for path in undisturbed.path.iterdir())

    def stop_at_the_end(_: object, history: list[dict[str, float]]) -> None:
        if len(history) == config.epochs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(config, dataset, runs_dir=disk, device="cpu", progress=stop_at_the_end)
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast.write_bytes(bytes(free))
    home = disk / config.dataset
    before = sorted(home.iterdir())
    for space in (0, *range(3 * 4096, 9 * 4096, 4096), needed // 2, needed - 8192):
        os.truncate(ballast, free - space)
        with pytest.raises(InputError, match=rf"^cannot write .*: {FULL}; free space or choose another runs_dir$"):
            fit(config, dataset, runs_dir=disk, device="cpu")
        assert sorted(home.iterdir()) == before
    ballast.unlink()
    assert_same_numbers(fit(config, dataset, runs_dir=disk, device="cpu"), undisturbed)


@pytest.mark.faults
def test_a_disk_that_became_read_only_is_named_before_anything_runs(
    disk: Path, tmp_path: Path, undisturbed: Workplace
) -> None:
    place = Workplace.make(tmp_path / "suite", runs_dir=disk)
    assert place.start(Sabotage("everything", 75)).struck
    remount = ["mount", "-o", "remount,ro", str(disk)]  # refused while what was killed still holds a file
    wait_until(lambda: subprocess.run(remount).returncode == 0, "the disk to be read-only")
    end = place.start()
    assert end.code == 2
    assert end.err.startswith(f"audioclf: cannot lock {disk}")
    assert READ_ONLY in end.err
    assert len(end.err.splitlines()) == 1
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    place.finish()
    assert_nothing_lost(place, undisturbed)


@pytest.mark.faults
def test_a_report_that_finds_no_space_says_so_and_is_made_when_there_is(disk: Path, tmp_path: Path) -> None:
    plan = Plan(name="one", epochs=2, experiments=({"model": "cnn", "protocol": "split"},))
    save_plan(plan, tmp_path / "one.yaml")
    write_runs(RunStore(tmp_path / "runs"), plan)
    command = [sys.executable, "-m", "audioclf_lib.cli", "report", "--plan", str(tmp_path / "one.yaml")]
    command += ["--runs-dir", str(tmp_path / "runs"), "--output-dir", str(disk)]
    environment = os.environ | {"AUDIOCLF_FIGURES": str(tmp_path / "figures"), "PYTHONPATH": str(PROJECT_ROOT)}
    (disk / "ballast").write_bytes(bytes((16 << 20) - 8192))
    full = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert full.returncode == 2
    assert full.stderr == f"audioclf: cannot write {disk}: {FULL}; free space or choose another folder\n"
    assert [path.name for path in disk.iterdir()] == ["ballast"]

    (disk / "ballast").unlink()
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert (disk / "report.pdf").read_bytes()[:5] == b"%PDF-"
    assert (disk / "report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.faults
@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("starve", "MemoryError: memory ran out; run fewer notebooks at once (--jobs 1)"),
        ("kill", "DeadKernelError: the kernel died; most often because memory ran out"),  # as the system does it
    ],
)
def test_where_memory_runs_out_the_table_of_failures_says_so(
    deed: str, told: str, tmp_path: Path, undisturbed: Workplace
) -> None:
    place = Workplace.make(tmp_path / "suite")
    moment = count_of(CHECKPOINT, undisturbed, ("kernel",))
    end = place.start(Sabotage("kernel", moment, deed=deed))
    assert (end.code, end.struck) == (1, True)
    table = end.out[end.out.index("Not done") :]
    assert "".join(told.split()) in "".join(table.split()), "it may be broken into lines"
    place.finish()
    assert_nothing_lost(place, undisturbed)


@pytest.mark.faults
def test_a_clock_that_is_set_back_while_a_suite_runs_changes_nothing(tmp_path: Path, undisturbed: Workplace) -> None:
    """Every process of it finds itself a day earlier, once an epoch is done; later ones from their beginning."""
    place = Workplace.make(tmp_path / "suite")
    moment = count_of(CHECKPOINT, undisturbed, ("",)) + 2
    end = place.start(Sabotage("everything", moment, deed="turn_back"))
    assert (end.code, end.err, end.struck) == (0, "", True)
    assert_nothing_lost(place, undisturbed)


@pytest.mark.faults
def test_files_from_the_future_are_no_reason_to_run_anything_again(tmp_path: Path, undisturbed: Workplace) -> None:
    """As if the clock had been a day ahead when notebooks were saved and half of the suite was run."""
    place = Workplace.make(tmp_path / "suite")
    assert place.start(Sabotage("kernel", 25)).struck
    tomorrow = time.time() + 86_400
    for path in [*place.folder.rglob("*"), *place.runs_dir.rglob("*")]:
        os.utime(path, (tomorrow, tomorrow))
    place.finished.clear()  # the folders seen before have another time of change now
    place.note()
    place.finish()
    assert_nothing_lost(place, undisturbed)
    executed = {path: path.stat().st_mtime_ns for path in place.runs_dir.rglob("*.ipynb")}
    place.finish()
    assert {path: path.stat().st_mtime_ns for path in place.runs_dir.rglob("*.ipynb")} == executed


# Files that holders of a fit's lock left behind: of another machine, of another version, of a full disk.
LEFT_BEHIND = {
    "on another machine": "\nprocess 1 on elsewhere",
    "by another version": '{"host": "elsewhere", "pid": 1, "started": 1.0, "token": "theirs"}',
    "on a full disk": "",
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("who", LEFT_BEHIND)
def test_a_fit_whose_lock_file_was_left_behind_is_trained_at_once(
    who: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset()
    config = make_fit(dataset)
    undisturbed = fit(config, dataset, runs_dir=tmp_path / "undisturbed", device="cpu")
    home = tmp_path / "runs" / config.dataset
    home.mkdir(parents=True)
    (home / f".{config.fit_id}.lock").write_text(LEFT_BEHIND[who])
    run = fit(config, dataset, runs_dir=tmp_path / "runs", device="cpu")
    assert capsys.readouterr().out == "", "it did not wait"
    assert_same_numbers(run, undisturbed)
    assert [path.name for path in home.iterdir()] == [config.fit_id]
    assert (run.path / PREDICTIONS).exists()


def test_what_a_kill_left_of_a_finished_fit_is_cleared_away(tmp_path: Path) -> None:
    """Killed between naming the run folder and removing the checkpoint, or in the midst of writing another folder."""
    dataset = make_dataset()
    config = make_fit(dataset)
    store = RunStore(tmp_path)
    run = fit(config, dataset, runs_dir=tmp_path, device="cpu")
    inode = run.path.stat().st_ino
    store.save_checkpoint(config, {"epoch": 1})
    (run.path.parent / f".{config.fit_id}.0123.draft").mkdir()
    assert fit(config, dataset, runs_dir=tmp_path, device="cpu") == run
    assert run.path.stat().st_ino == inode
    assert [path.name for path in run.path.parent.iterdir()] == [config.fit_id]


WANT = """
import sys
import torch
from tiny import make_dataset, make_fit
from audioclf_lib.training.trainer import fit

torch.set_num_threads(1)
dataset = make_dataset()

def after_an_epoch(config, history):
    print("trained", len(history), flush=True)
    sys.stdin.readline()

fit(make_fit(dataset), dataset, runs_dir=sys.argv[1], device="cpu", progress=after_an_epoch)
"""


def want(runs_dir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WANT, str(runs_dir)]
    return subprocess.Popen(
        command, cwd=PROJECT_ROOT / "tests" / "support", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_fit_that_two_want_is_trained_once(tmp_path: Path) -> None:
    """The second comes when the first has trained an epoch, and is there before the first goes on."""
    first = want(tmp_path)
    assert first.stdout is not None
    assert first.stdout.readline() == "trained 1\n"
    second = want(tmp_path)
    assert second.stdout is not None
    assert f"is being trained by process {first.pid} on " in second.stdout.readline()
    assert first.communicate("\n\n")[0] == "trained 2\n"
    assert second.communicate()[0] == ""
    assert (first.returncode, second.returncode) == (0, 0)
    (run,) = RunStore(tmp_path).find()
    run.verify()
