"""Truncated files and flipped bits, in every file of a fit: detected, named, and the fit is trained again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import call, snapshot
from nothing_lost import Sabotage, Workplace, assert_nothing_lost
from same_numbers import assert_same_numbers
from synthetic import write_runs
from tiny import make_dataset, make_fit

from audioclf_lib._support.errors import DamagedRunError
from audioclf_lib.runs.checksums import SUMS
from audioclf_lib.runs.store import ARTEFACTS, CHECKPOINT, HISTORY, MODEL, WEIGHTS, RunStore
from audioclf_lib.suite.plan import Plan, save_plan
from audioclf_lib.training.trainer import fit

pytestmark = [pytest.mark.nothing_lost, pytest.mark.usefixtures("one_thread")]

DATASET = make_dataset()
CONFIGURATION = make_fit(DATASET)


def flip_a_bit(content: bytes, generator: random.Random) -> bytes:
    position = generator.randrange(len(content))
    flipped = content[position] ^ 1 << generator.randrange(8)
    return content[:position] + bytes([flipped]) + content[position + 1 :]


def cut_off(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


def empty(content: bytes, generator: random.Random) -> bytes:
    return b""


def lose_a_block(content: bytes, generator: random.Random) -> bytes:
    """Zeros where a block should be: what a file system leaves when the power goes."""
    start = generator.randrange(len(content))
    return content[:start] + bytes(min(4096, len(content) - start)) + content[start + 4096 :]


Damage = Callable[[bytes, random.Random], bytes]
DAMAGES: tuple[Damage, ...] = (flip_a_bit, cut_off, empty, lose_a_block)


def do_damage(path: Path, damage: Damage, generator: random.Random) -> None:
    before = path.read_bytes()
    while (after := damage(before, generator)) == before:
        pass  # a block of zeros was one before
    path.write_bytes(after)


def stop_after_an_epoch(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a finished fit."""
    folder = tmp_path_factory.mktemp("trained")
    fit(CONFIGURATION, DATASET, runs_dir=folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a fit that was stopped after its first epoch."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KeyboardInterrupt):
        fit(CONFIGURATION, DATASET, runs_dir=folder, device="cpu", progress=stop_after_an_epoch)
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> RunStore:
    return RunStore(shutil.copytree(trained, tmp_path / "runs"))


@pytest.mark.parametrize("name", [*ARTEFACTS, SUMS, CHECKPOINT])
def test_no_damage_goes_unseen(name: str, trained: Path, interrupted: Path, tmp_path: Path) -> None:
    runs = RunStore(shutil.copytree(interrupted if name == CHECKPOINT else trained, tmp_path / "runs"))
    assert_all_damage_is_seen(runs, name)


@pytest.mark.parametrize("name", [MODEL, SUMS])
def test_no_damage_goes_unseen_in_the_folder_of_an_own_architecture(name: str, trained: Path, tmp_path: Path) -> None:
    """Its checksums end with those of ``model.py``: a list that is cut off there is one of a folder without it."""
    run, runs = RunStore(trained).load(CONFIGURATION), RunStore(tmp_path / "runs")
    artefacts = {"history": run.history, "predictions": run.predictions, "metrics": run.metrics}
    own = runs.save(
        CONFIGURATION, **artefacts, weights=run.weights(), environment=run.environment, model_source="# mine\n" * 40
    )
    assert_all_damage_is_seen(runs, name)
    if name == SUMS:
        lines = (own.path / SUMS).read_bytes().splitlines(keepends=True)
        (own.path / SUMS).write_bytes(b"".join(lines[:-1]))
    else:
        (own.path / MODEL).unlink()
    assert MODEL in str(runs.damage(CONFIGURATION))


def assert_all_damage_is_seen(runs: RunStore, name: str) -> None:
    """Damage a file in many ways; each time the fit tells of it, and names the file."""
    generator = random.Random(name)
    assert runs.damage(CONFIGURATION) is None
    (path,) = runs.runs_dir.rglob(name)
    whole = path.read_bytes()
    for damage in DAMAGES * 20:
        do_damage(path, damage, generator)
        told = runs.damage(CONFIGURATION)
        assert told is not None, damage
        assert str(path.parent) in told
        # Of a sum that is damaged itself nobody can tell whether it is the sum or the file.
        assert path.name in told or name == SUMS
        assert not (runs.exists(CONFIGURATION) and runs.is_whole(CONFIGURATION))
        path.write_bytes(whole)
    assert runs.damage(CONFIGURATION) is None


@pytest.mark.parametrize("name", [*ARTEFACTS, SUMS])
def test_a_damaged_artefact_is_named_kept_aside_and_the_fit_trained_again(
    name: str, runs: RunStore, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs.path(CONFIGURATION)
    do_damage(path / name, flip_a_bit, random.Random(1))
    damaged = snapshot(path)
    again = fit(CONFIGURATION, DATASET, runs_dir=runs.runs_dir, device="cpu")
    (line,) = capsys.readouterr().out.splitlines()
    kept = path.parent / "damaged" / path.name
    assert line.endswith(f"; its folder is kept as {kept}, and the fit is trained again")
    assert name in line
    assert snapshot(kept) == damaged
    assert_same_numbers(again, RunStore(trained).load(CONFIGURATION))
    assert runs.is_whole(CONFIGURATION)
    assert [run.path for run in runs.find()] == [path], "what was set aside is no run"
    if name == SUMS:  # and a second time
        do_damage(path / name, cut_off, random.Random(2))
        fit(CONFIGURATION, DATASET, runs_dir=runs.runs_dir, device="cpu")
        assert sorted(folder.name for folder in kept.parent.iterdir()) == [path.name, f"{path.name}-2"]


def test_a_file_that_is_gone_counts_as_damaged_but_for_weights_that_were_not_published(runs: RunStore) -> None:
    path = runs.path(CONFIGURATION)
    (path / WEIGHTS).unlink()
    assert runs.is_whole(CONFIGURATION)
    (path / HISTORY).unlink()
    assert runs.damage(CONFIGURATION) == f"{path / HISTORY} is missing"
    shutil.rmtree(path)
    path.mkdir()
    assert runs.damage(CONFIGURATION) == f"{path / 'config.json'} is missing"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_fit_begun_anew(
    damage: Damage, interrupted: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = RunStore(shutil.copytree(interrupted, tmp_path / "runs"))
    (path,) = runs.runs_dir.rglob(CHECKPOINT)
    do_damage(path, damage, random.Random(3))
    told: list[int] = []
    again = fit(
        CONFIGURATION,
        DATASET,
        runs_dir=runs.runs_dir,
        device="cpu",
        progress=lambda _, history: told.append(len(history)),
    )
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{path} is damaged (")
    assert line.endswith("); it is removed, and the fit is trained again")
    assert told == [1, 2]
    assert_same_numbers(again, RunStore(trained).load(CONFIGURATION))


def test_a_report_names_the_file_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(name="one", epochs=2, experiments=({"model": "cnn", "protocol": "split"},))
    save_plan(plan, tmp_path / "one.yaml")
    (run,) = write_runs(RunStore(tmp_path / "runs"), plan)
    table = run.history
    table.loc[0, "train_loss"] += 0.25  # still a sound table
    table.to_csv(run.path / HISTORY, index=False)
    before = snapshot(tmp_path)
    arguments = ["--plan", tmp_path / "one.yaml", "--runs-dir", tmp_path / "runs", "--output-dir", tmp_path / "report"]
    assert call(monkeypatch, "report", *arguments) == 2
    told = capsys.readouterr().err
    assert f"{run.path / HISTORY} is damaged (" in told
    assert "have `audioclf suite` set it aside and train the fit again" in told
    assert len(told.splitlines()) == 1
    assert snapshot(tmp_path) == before
    with pytest.raises(DamagedRunError):
        _ = RunStore(tmp_path / "runs").load(run.config).history


@pytest.mark.faults
def test_a_suite_names_what_is_damaged_and_trains_that_again(tmp_path: Path, undisturbed: Workplace) -> None:
    place = Workplace.make(tmp_path / "suite")
    # By its eighth operation the first fit has written a checkpoint, and not yet the second.
    assert place.start(Sabotage("everything", 8, by="kernel")).struck
    (checkpoint,) = place.runs_dir.rglob(CHECKPOINT)
    do_damage(checkpoint, flip_a_bit, random.Random(4))
    end = place.start()
    assert (end.code, end.err) == (0, "")
    assert f"{checkpoint} is damaged (" in end.out
    assert_nothing_lost(place, undisturbed, redone={checkpoint.parent.name.removeprefix(".").removesuffix(".partial")})

    history = next(place.runs_dir.rglob(HISTORY))
    do_damage(history, flip_a_bit, random.Random(5))
    end = place.start()
    assert (end.code, end.err) == (0, "")
    (line,) = [line for line in end.out.splitlines() if "damaged" in line]
    assert line.startswith(f"{history} is damaged (")
    assert line.endswith(f"; fit {history.parent.name} is trained again")
    assert (history.parent.with_name("damaged") / history.parent.name / HISTORY).exists()
    assert_nothing_lost(place, undisturbed, redone={history.parent.name, checkpoint.parent.name[1:-8]})
