"""Epochs and final figures in TensorBoard and Weights & Biases: every epoch once, whatever interrupts a fit."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import call
from tiny import make_dataset, make_fit

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, FitConfig
from audioclf_lib.data import Dataset
from audioclf_lib.training import fit_all
from audioclf_lib.training.loggers import Logger, final_figures

HISTORY: list[dict[str, float]] = [
    {"epoch": epoch, "seconds": 1.0, "learning_rate": 0.1, "train_loss": 3.0 - epoch, "test_clip_accuracy": epoch / 4}
    for epoch in (1, 2, 3)
]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="module")
def config(dataset: Dataset) -> FitConfig:
    return make_fit(dataset, recipe_changes={"batch_size": 4})


def logged_to_tensorboard(runs_dir: Path, config: FitConfig) -> dict[str, list[tuple[int, float]]]:
    """Every scalar's steps and values, as TensorBoard reads them from the fit's event files."""
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    folder = runs_dir / config.dataset / "logs" / "tensorboard" / config.fit_id
    events = accumulator.EventAccumulator(str(folder), purge_orphaned_data=False).Reload()
    tags = events.Tags()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in tags["scalars"]} | {
        name: [] for name in tags["images"]
    }


def logged_to_wandb(runs_dir: Path, config: FitConfig) -> list[dict[str, Any]]:
    """What each offline run of a fit logged, step by step: its file is a LevelDB log of protocol buffers."""
    protocol = importlib.import_module("wandb.proto.wandb_internal_pb2")
    folder = runs_dir / config.dataset / "logs" / "wandb" / config.fit_id
    rows = []
    for file in folder.rglob("*.wandb"):
        content, parts = file.read_bytes(), b""
        position = 7  # behind the file's header
        while position + 7 <= len(content):
            if 32_768 - position % 32_768 < 7:  # no record begins so near to the end of a block
                position += 32_768 - position % 32_768
            length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
            parts += content[position + 7 : position + 7 + length]
            position += 7 + length
            if kind in (1, 4):  # whole, or the last part
                record = protocol.Record.FromString(parts)
                parts = b""
                if record.HasField("history"):
                    items = record.history.item
                    rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def test_tensorboard_holds_every_epoch_and_the_figures(dataset: Dataset, config: FitConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (run,) = fit_all([config], dataset, runs_dir=tmp_path, device="cpu", log="tensorboard")
    logged = logged_to_tensorboard(tmp_path, config)
    for column, title in {"train_loss": "loss/train", "validation_clip_accuracy": "clip_accuracy/validation"}.items():
        assert logged[title] == [(epoch, pytest.approx(value)) for epoch, value in enumerate(run.history[column], 1)]
    assert {"confusion", "roc", "learning_rate", "seconds"} <= set(logged)


def test_wandb_logs_offline_without_a_key(
    dataset: Dataset, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (run,) = fit_all([config], dataset, runs_dir=tmp_path, device="cpu", log="wandb")
    wandb.teardown()  # its service has written all when it has ended
    rows = logged_to_wandb(tmp_path, config)
    epochs = [row for row in rows if "loss/train" in row]
    assert [row["_step"] for row in epochs] == [1, 2]
    assert [row["loss/train"] for row in epochs] == pytest.approx(run.history["train_loss"].tolist())
    assert any("confusion" in key for row in rows for key in row)
    images = (tmp_path / config.dataset / "logs" / "wandb").rglob("*.png")
    assert sorted(path.name.split("_")[0] for path in images) == ["confusion", "roc"]


def test_a_fit_that_goes_on_is_logged_once_from_its_first_epoch(config: FitConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for until in (1, 2), (3,):  # two processes, of which the first was killed
        logger = Logger("tensorboard", tmp_path)
        for epoch in until:
            logger(config, HISTORY[:epoch])
        logger.close()
    logged = logged_to_tensorboard(tmp_path, config)
    assert logged["loss/train"] == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert logged["clip_accuracy/test"] == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_a_fit_that_was_trained_before_is_logged_once(dataset: Dataset, config: FitConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fit_all([config], dataset, runs_dir=tmp_path, device="cpu")
    assert not (tmp_path / config.dataset / "logs").exists()
    for _ in range(2):
        fit_all([config], dataset, runs_dir=tmp_path, device="cpu", log="tensorboard")
    assert [step for step, _ in logged_to_tensorboard(tmp_path, config)["loss/train"]] == [1, 2]
    assert len(list((tmp_path / config.dataset / "logs").rglob("events.*"))) == 1


def test_progress_is_told_as_without_a_log(config: FitConfig, tmp_path: Path) -> None:
    told = []

    class Progress:
        def __call__(self, config: FitConfig, history: list[dict[str, float]]) -> None:
            told.append(len(history))

        def step(self, *arguments: object) -> None:
            told.append(-1)

    logger = Logger("none", tmp_path, Progress())
    logger(config, HISTORY[:2])
    logger.step(config, HISTORY, 0.5)
    assert told == [2, -1]
    assert Logger("none", tmp_path).step is None


@pytest.mark.parametrize("log", ["tensorboard", "wandb"])
def test_without_the_extra_nothing_is_trained(
    log: Any, dataset: Dataset, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, log, None)
    with pytest.raises(InputError, match=rf"{log} is not installed; `pip install 'audioclf\[{log}\]'` brings it"):
        fit_all([config], dataset, runs_dir=tmp_path, log=log)
    assert not list(tmp_path.iterdir())


def test_where_it_is_logged_is_no_part_of_a_fit(dataset: Dataset) -> None:
    (plain,), (logged,) = (
        Experiment(model="cnn", protocol="split", log=log).fits(dataset) for log in ("none", "wandb")
    )
    assert plain == logged and "log" not in plain.model_dump()


def test_final_figures_show_the_scores_of_the_run(dataset: Dataset, config: FitConfig, tmp_path: Path) -> None:
    (run,) = fit_all([config], dataset, runs_dir=tmp_path, device="cpu")
    figures = final_figures(run)
    shown = [text.get_text() for text in figures["confusion"].axes[0].texts]
    assert sum(map(int, shown)) == len(set(run.predictions.query("split == 'test'")["clip_id"]))
    assert len(figures["roc"].axes[0].lines) == len(dataset.class_names) + 2


@pytest.mark.parametrize("command", [["suite", "--dry-run"], ["run", "cnn-split"]])
def test_the_command_line_refuses_a_log_whose_extra_is_missing(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert call(monkeypatch, *command, "--log", "wandb") == 2
    assert "`pip install 'audioclf[wandb]'` brings it" in capsys.readouterr().err
