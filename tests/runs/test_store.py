"""Run folders: what lies in them, and that one that exists is whole."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PROJECT_ROOT
from safetensors.torch import load_file
from tiny import make_dataset, make_fit, make_tones
from torch import Tensor

from audioclf_lib._support.errors import DamagedRunError, InputError
from audioclf_lib.config import FitConfig
from audioclf_lib.data import Dataset
from audioclf_lib.data.windowing import cut_windows
from audioclf_lib.models import create_model
from audioclf_lib.runs import load_run
from audioclf_lib.runs import store as store_module
from audioclf_lib.runs.checksums import SUMS, sum_of, write_sums
from audioclf_lib.runs.store import CHECKPOINT, MODEL, WEIGHTS, Run, RunStore
from audioclf_lib.training.trainer import fit

CONFIGURATION = make_fit(make_dataset(folds=4))
ARTEFACTS = {
    "config.json",
    "history.csv",
    "predictions.parquet",
    "metrics.json",
    "weights.safetensors",
    "environment.json",
    "SHA256SUMS",
}


def artefacts(size: int = 1) -> dict[str, Any]:
    """What a fit leaves behind, of about ``size`` times the least."""
    generator = np.random.default_rng(0)
    n = 4 * size
    history = {"epoch": [1, 2], "seconds": [0.1, 1 / 3], "learning_rate": [1e-3, 1e-300], "train_loss": [2 / 3, 1e-17]}
    return {
        "history": pd.DataFrame(history),
        "predictions": pd.DataFrame(
            {
                "split": ["test"] * n,
                "clip_id": [f"clip é {i}" for i in range(n)],
                "source": [f"recording {i // 2}" for i in range(n)],
                "fold": np.ones(n, dtype=np.int64),
                "window_index": np.arange(n),
                "silent": np.arange(n) % 2 == 0,
                "y_true": np.zeros(n, dtype=np.int64),
                "p_0": generator.random(n).astype(np.float32),
                "p_1": generator.random(n).astype(np.float32),
                "p_2": generator.random(n).astype(np.float32),
            }
        ),
        "metrics": {"chosen": {"epoch": 2, "accuracy": 0.1 + 0.2}, "scores": {"test": {"auc": None}}},
        "weights": {"w": torch.randn(64 * size, 4).t(), "steps": torch.tensor(7)},  # transposed: not contiguous
        "environment": {"device": "cpu", "commit": None},
    }


def state() -> dict[str, Any]:
    return {"epoch": 1, "history": [{"loss": 0.5}], "model": {"w": torch.ones(3)}, "optimizer": {"state": {0: {}}}}


@pytest.fixture
def runs(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "my runs")


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} if folder.exists() else set()


# --- what lies in a run folder -------------------------------------------------------------------------------------


def test_a_run_folder_holds_its_artefacts_under_the_data_set_and_the_fit_id(runs: RunStore) -> None:
    run = runs.save(CONFIGURATION, **artefacts())
    assert run.path == runs.runs_dir / "tiny" / CONFIGURATION.fit_id == runs.path(CONFIGURATION)
    assert names(runs.runs_dir / "tiny") == {CONFIGURATION.fit_id} | {
        f"{CONFIGURATION.fit_id}/{name}" for name in ARTEFACTS
    }


def test_what_is_saved_is_what_is_read(runs: RunStore) -> None:
    given = artefacts()
    runs.save(CONFIGURATION, **given)
    run = RunStore(runs.runs_dir).load(CONFIGURATION)
    assert run.config == CONFIGURATION
    pd.testing.assert_frame_equal(run.history, given["history"], check_exact=True)
    pd.testing.assert_frame_equal(run.predictions, given["predictions"], check_exact=True, check_dtype=False)
    assert run.predictions["p_0"].dtype == np.float32
    assert run.metrics == given["metrics"]
    assert run.environment == given["environment"]
    weights = run.weights()
    assert weights.keys() == given["weights"].keys()
    for name, tensor in given["weights"].items():
        assert torch.equal(weights[name], tensor)


def test_history_keeps_every_number_to_the_last_bit(runs: RunStore) -> None:
    generator = np.random.default_rng(1)
    history = pd.DataFrame({"train_loss": generator.random(2_000) * 10.0 ** generator.integers(-30, 30, 2_000)})
    run = runs.save(CONFIGURATION, **artefacts() | {"history": history})
    pd.testing.assert_frame_equal(run.history, history, check_exact=True)


def test_config_json_tells_all_that_determines_the_result(runs: RunStore) -> None:
    run = runs.save(CONFIGURATION, **artefacts())
    config = json.loads((run.path / "config.json").read_text())
    assert config.keys() == FitConfig.model_fields.keys()
    for name in (
        "model",
        "model_settings",
        "model_digest",
        "recipe",
        "train_folds",
        "val_fold",
        "test_fold",
        "seed",
        "epochs",
    ):
        expected = getattr(CONFIGURATION, name)
        assert config[name] == (list(expected) if isinstance(expected, tuple) else expected)
    assert config["schema_version"] == 2
    assert config["fingerprint"] == CONFIGURATION.fingerprint
    assert FitConfig(**config).fit_id == run.path.name


def test_artefacts_are_plain_files_that_other_tools_read(runs: RunStore) -> None:
    """No pickle: nothing in a run folder can run code when it is opened."""
    folder = runs.save(CONFIGURATION, **artefacts()).path
    assert (folder / "predictions.parquet").read_bytes()[:4] == b"PAR1"
    assert load_file(folder / "weights.safetensors").keys() == {"w", "steps"}
    assert (folder / "history.csv").read_text().splitlines()[0] == "epoch,seconds,learning_rate,train_loss"
    for path in folder.iterdir():
        with pytest.raises(Exception, match=r"."):
            torch.load(path, weights_only=False)


# --- finding runs --------------------------------------------------------------------------------------------------


def test_runs_are_found_by_what_their_configuration_says(runs: RunStore) -> None:
    dataset = make_dataset(folds=4)
    fits = [make_fit(dataset, seed=seed, val_fold=fold) for seed in (0, 1) for fold in (2, 3)]
    for config in fits:
        runs.save(config, **artefacts())
    assert {run.config.fit_id for run in runs.find()} == {config.fit_id for config in fits}
    assert [run.path.name for run in runs.find()] == sorted(config.fit_id for config in fits)
    assert {run.config.val_fold for run in runs.find(seed=1)} == {2, 3}
    assert [run.config for run in runs.find("tiny", seed=1, val_fold=3)] == [fits[3]]
    assert runs.find("esc10") == runs.find(seed=2) == []


def test_there_is_nothing_in_a_store_that_does_not_exist(tmp_path: Path) -> None:
    runs = RunStore(tmp_path / "nothing")
    assert runs.find() == []
    assert not runs.exists(CONFIGURATION)
    assert runs.load_checkpoint(CONFIGURATION) is None
    with pytest.raises(InputError, match=f"{CONFIGURATION.fit_id} is not in .*nothing; train it"):
        runs.load(CONFIGURATION)
    assert not (tmp_path / "nothing").exists()


def test_folders_that_are_no_run_folders_are_passed_over(runs: RunStore) -> None:
    run = runs.save(CONFIGURATION, **artefacts())
    home = run.path.parent
    (home / "notes").mkdir()
    (home / "notes" / "read me.txt").write_text("mine")
    (home / "file").write_text("mine")
    shutil.copytree(run.path, home / f".{run.path.name}.0123.draft")
    runs.save_checkpoint(make_fit(make_dataset(), seed=9), state())
    assert [found.path for found in runs.find()] == [run.path]


def test_weights_that_are_damaged_are_named(runs: RunStore) -> None:
    run = runs.save(CONFIGURATION, **artefacts())
    for content in (b"", b"\x80\x04N.", (run.path / WEIGHTS).read_bytes()[:-1]):
        (run.path / WEIGHTS).write_bytes(content)
        with pytest.raises(
            InputError, match=r"weights\.safetensors is damaged .*; restore it, or have `audioclf suite`"
        ):
            runs.load(CONFIGURATION).weights()


def test_a_run_published_without_weights_says_so_when_they_are_asked_for(runs: RunStore) -> None:
    run = runs.save(CONFIGURATION, **artefacts())
    (run.path / "weights.safetensors").unlink()
    assert runs.load(CONFIGURATION).metrics == artefacts()["metrics"]
    with pytest.raises(
        InputError, match=r"holds no weights.safetensors: published runs keep few; train the fit in another"
    ):
        runs.load(CONFIGURATION).weights()


def sign(folder: Path) -> None:
    """Write the checksums of a run folder anew, as a program does that changes it and knows of them."""
    write_sums(folder, [path.name for path in folder.iterdir() if path.name != SUMS])


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "metrics.json", "environment.json"])
def test_json_that_is_no_object_is_damaged(name: str, content: bytes, runs: RunStore) -> None:
    run = runs.save(CONFIGURATION, **artefacts())
    (run.path / name).write_bytes(content)
    sign(run.path)
    with pytest.raises(DamagedRunError, match=rf"{name} is damaged"):
        runs.load(CONFIGURATION).check()


def test_a_table_without_one_of_its_columns_is_damaged(runs: RunStore) -> None:
    for name in ("source", "p_2"):
        given = artefacts()
        run = RunStore(runs.runs_dir / name).save(
            CONFIGURATION, **given | {"predictions": given["predictions"].drop(columns=name)}
        )
        with pytest.raises(DamagedRunError, match=rf"predictions\.parquet is damaged \(no column '{name}'\)"):
            run.check()


def test_memory_that_runs_out_is_no_damage(runs: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a fit would be set aside, or its checkpoint removed, where it could go on."""

    def starve(*_: Any, **__: Any) -> None:
        raise MemoryError

    runs.save_checkpoint(CONFIGURATION, state())
    monkeypatch.setattr(torch, "load", starve)
    with pytest.raises(MemoryError):
        runs.damage(CONFIGURATION)


def test_a_folder_without_checksums_is_damaged(runs: RunStore) -> None:
    run = runs.save(CONFIGURATION, **artefacts())
    (run.path / SUMS).unlink()
    assert runs.damage(CONFIGURATION) == f"{run.path / SUMS} is missing"


def test_checksums_are_those_that_other_tools_check(runs: RunStore) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("needs sha256sum")
    run = runs.save(CONFIGURATION, **artefacts(), model_source="# mine")
    done = subprocess.run(["sha256sum", "--check", SUMS], cwd=run.path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name}: OK" for name in (*store_module.ARTEFACTS, MODEL)]


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (1, "was written by an older audioclf (schema 1); train it again"),
        (3, "was written by a newer audioclf (schema 3); update this one to read it"),
    ],
)
def test_a_run_of_another_version_ends_in_one_sentence(version: int, sentence: str, runs: RunStore) -> None:
    """Whatever else its configuration says: settings have other names there."""
    run = runs.save(CONFIGURATION, **artefacts())
    (run.path / "config.json").write_text(json.dumps({"schema_version": version, "model": "cnn", "num_heads": None}))
    sign(run.path)
    for read in (lambda: runs.load(CONFIGURATION), lambda: load_run(run.path)):
        with pytest.raises(InputError) as error:
            read()
        assert str(error.value) == f"{run.path} {sentence}"


def test_folders_that_cannot_be_read_do_not_hide_the_others(runs: RunStore) -> None:
    dataset = make_dataset(folds=4)
    whole, newer, damaged, moved, lost = (
        runs.save(make_fit(dataset, seed=seed), **artefacts()).path for seed in range(5)
    )
    config = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps(config | {"schema_version": 3, "tomorrow": 1}))
    sign(newer)
    (damaged / "config.json").write_text("{")
    moved = moved.rename(moved.with_name("copy of mine"))
    (lost / "config.json").unlink()
    found, errors = runs.scan("tiny")
    assert [run.path for run in found] == [run.path for run in runs.find()] == [whole]
    told = sorted(map(str, errors))
    expected = {
        newer: "newer audioclf",
        damaged: "config.json is damaged",
        moved: "holds another fit than its name says",
        lost: "config.json is missing",
    }
    assert len(told) == len(expected)
    for path, reason in expected.items():
        assert [line for line in told if str(path) in line and reason in line], path
    assert runs.scan("esc10") == RunStore(runs.runs_dir / "nothing").scan() == ([], [])


def test_data_sets_are_known_by_their_runs_and_told_apart_by_their_content(runs: RunStore) -> None:
    dataset = make_dataset(folds=4)
    (dataset_of, *_), other = ("birds", "birds-0a1b2c3d", "birds-of-prey", "birdsong"), dataset
    for name, fingerprint in [
        (dataset_of, "a" * 16),
        (dataset_of, "a" * 16),
        (dataset_of, "b" * 16),
        ("birds-0a1b2c3d", "c" * 16),
        ("birds-of-prey", "d" * 16),
        ("birdsong", "e" * 16),
    ]:
        runs.save(make_fit(replace(other, name=name, fingerprint=fingerprint)), **artefacts())
    known = runs.known_datasets("birds")
    assert {(each.name, each.fingerprint) for each in known} == {
        ("birds", "a" * 16),
        ("birds", "b" * 16),
        ("birds-0a1b2c3d", "c" * 16),
    }
    assert {each.folds for each in known} == {(1, 2, 3, 4)}
    assert {each.class_names for each in known} == {tuple(dataset.class_names)}
    assert runs.known_datasets("bird") == []


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run = RunStore("~/my runs").save(CONFIGURATION, **artefacts())
    assert run.path == tmp_path / "my runs" / "tiny" / CONFIGURATION.fit_id
    assert load_run(f"~/my runs/tiny/{CONFIGURATION.fit_id}") == load_run(CONFIGURATION.fit_id, "~/my runs") == run


# --- one run by its folder or its id -------------------------------------------------------------------------------


def test_a_run_is_found_by_its_folder_wherever_that_lies(
    runs: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.save(CONFIGURATION, **artefacts())
    assert load_run(run.path) == load_run(str(run.path)) == run
    elsewhere = shutil.copytree(run.path, tmp_path / "Downloads" / "my best run")
    assert load_run(elsewhere).config == CONFIGURATION
    assert load_run(elsewhere).metrics == run.metrics
    monkeypatch.chdir(run.path)
    assert load_run(".") == run


def test_a_run_is_found_by_its_id_first_among_ones_own_then_among_the_published(
    runs: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "DEFAULT_RUNS_DIR", runs.runs_dir)
    monkeypatch.setattr(store_module, "PUBLISHED_DIR", tmp_path / "published")
    published = RunStore(tmp_path / "published").save(CONFIGURATION, **artefacts())
    assert load_run(CONFIGURATION.fit_id) == published
    own = runs.save(CONFIGURATION, **artefacts())
    assert load_run(CONFIGURATION.fit_id) == own
    assert load_run(CONFIGURATION.fit_id, tmp_path / "published") == published


def test_an_id_that_is_unknown_is_told_with_the_nearest(runs: RunStore) -> None:
    fits = [make_fit(make_dataset(folds=4), seed=seed) for seed in (0, 1)]
    for each in fits:
        runs.save(each, **artefacts())
    for wrong in (fits[1].fit_id[:-1], runs.runs_dir, runs.runs_dir / "tiny" / "nothing"):
        with pytest.raises(InputError) as error:
            load_run(wrong, runs.runs_dir)
        assert str(error.value).startswith(f"there is no fit {str(wrong)!r} in {runs.runs_dir}; the nearest ids are ")
        assert str(error.value).count(fits[1].fit_id) == 1
    with pytest.raises(InputError, match=r"there is no fit 'x' in .*; the nearest ids are none: train one with"):
        load_run("x", runs.runs_dir / "nothing")
    assert not (runs.runs_dir / "nothing").exists()


# --- the trained model ---------------------------------------------------------------------------------------------


OWN = """
import torch
from torch import nn
from audioclf_lib.models import register_model


@register_model("my-net", title="My net")
class MyNet(nn.Module):
    \"\"\"A small one.\"\"\"

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (4, 8), slope: float = 0.1) -> None:
        super().__init__()
        sizes = [1, *widths]
        self.layers = nn.Sequential(*(nn.Conv1d(a, b, 9, stride=8) for a, b in zip(sizes, sizes[1:])))
        self.head = nn.Linear(sizes[-1], num_classes)
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.leaky_relu(self.layers(x), self.slope).mean(2))
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_net.py"
    path.write_text(OWN)
    return path


def recomputed(run: Run, dataset: Dataset) -> Any:
    """The probabilities that the run's model gives to the windows of its table, in the table's order."""
    windows = cut_windows(dataset.waveforms.copy())
    rows = [dataset.clip_ids.index(name) for name in run.predictions["clip_id"]]
    model = run.model()
    assert not model.training
    with torch.no_grad():
        x = windows[rows, run.predictions["window_index"].tolist()]
        return model(x).softmax(1).numpy()


MODELS: dict[str, dict[str, Any]] = {
    "cnn as written": {"recipe": "as-written"},
    "cnn tuned": {"recipe": "tuned", "recipe_changes": {"batch_size": 4, "peak_normalise": True}},
    "cnn without normalisation": {"recipe_changes": {"batch_size": 4, "peak_normalise": False, "ema_decay": 0.9}},
    "cnn companded": {"recipe_changes": {"batch_size": 4, "companding": 100}},
    "transformer, 4 heads": {"model": "transformer", "num_heads": 4, "recipe_changes": {"batch_size": 4}},
    "own": {"model": "OWN", "widths": [6, 5], "slope": 0.3},
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", MODELS)
def test_a_run_gives_the_model_that_reproduces_its_probabilities(case: str, own_file: Path, tmp_path: Path) -> None:
    experiment = MODELS[case]
    if experiment.get("model") == "OWN":
        experiment = experiment | {"model": str(own_file)}
    dataset = make_tones()
    run = fit(make_fit(dataset, **experiment), dataset, runs_dir=tmp_path / "runs", device="cpu")
    own_file.unlink()
    given = run.predictions[[f"p_{label}" for label in range(3)]].to_numpy()
    np.testing.assert_allclose(recomputed(load_run(run.path), dataset), given, atol=1e-5)
    run.verify()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.slow
def test_an_own_models_run_is_read_and_used_where_nobody_registered_it(own_file: Path, tmp_path: Path) -> None:
    dataset = make_tones()
    run = fit(make_fit(dataset, model=str(own_file)), dataset, runs_dir=tmp_path / "runs", device="cpu")
    assert (run.path / MODEL).read_text() == OWN
    code = (
        "import sys, torch\nfrom audioclf_lib.runs import RunStore\n"
        "(run,) = RunStore(sys.argv[1]).find(model='my-net')\n"
        "print(run.config.model_title, run.model()(torch.zeros(2, 1, 16000)).shape)"
    )
    own_file.unlink()
    command = [sys.executable, "-c", code, str(tmp_path / "runs")]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "My net torch.Size([2, 3])\n"


@pytest.mark.usefixtures("one_thread")
def test_another_version_of_an_own_model_is_never_used(own_file: Path, tmp_path: Path) -> None:
    """The registered one may have been edited since: the run keeps its own; a copy that was edited is refused."""
    dataset = make_tones()
    config = make_fit(dataset, model=str(own_file))
    run = fit(config, dataset, runs_dir=tmp_path / "runs", device="cpu")
    before = recomputed(run, dataset)
    own_file.write_text(OWN.replace("self.slope)", "-self.slope)"))
    assert make_fit(dataset, model=str(own_file)).fit_id != config.fit_id
    np.testing.assert_array_equal(recomputed(run, dataset), before)
    assert make_fit(dataset, model="my-net").fit_id != config.fit_id, "the name still stands for the edited file"

    (run.path / MODEL).write_text(own_file.read_text())
    with pytest.raises(DamagedRunError, match=r"model\.py is damaged"):
        run.model()
    sign(run.path)
    with pytest.raises(InputError, match=r"was trained with another version of the model my-net \("):
        run.model()
    (run.path / MODEL).unlink()
    assert RunStore(tmp_path / "runs").damage(config) is not None


def test_weights_refuse_a_model_with_other_settings(runs: RunStore) -> None:
    dataset = make_dataset(folds=4)
    config = make_fit(dataset, model="transformer", num_heads=4, recipe_changes={"activation": "relu"})
    alike = {"num_classes": 3, "num_heads": 4, "activation": "relu"}
    weights = create_model("transformer", **alike).state_dict()
    stored = runs.save(config, **artefacts() | {"weights": weights}).weights()
    create_model("transformer", **alike, dropout=0.3).load_state_dict(stored)
    for changes, told in {
        ("num_heads", 1): r"num_heads = 4 \(not 1\)",
        ("activation", "none"): r"activation = relu \(not none\)",
    }.items():
        with pytest.raises(InputError, match=told):
            create_model("transformer", **alike | dict([changes])).load_state_dict(stored)
    with pytest.raises(InputError, match=r"model = transformer \(not cnn\)"):
        create_model("cnn", num_classes=3).load_state_dict(stored)


# --- whole or not at all -------------------------------------------------------------------------------------------


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


def refuse_file(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Let no file of this name be written."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        for method in ("write_text", "write_bytes"):
            write = getattr(Path, method)

            def guarded(path: Path, *content: Any, write: Any = write, **options: Any) -> Any:
                return refuse() if path.name == name else write(path, *content, **options)

            monkeypatch.setattr(Path, method, guarded)

    return apply


FAILURES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "config.json": refuse_file("config.json"),
    "history.csv": lambda monkeypatch: monkeypatch.setattr(pd.DataFrame, "to_csv", refuse),
    "predictions.parquet": lambda monkeypatch: monkeypatch.setattr(pd.DataFrame, "to_parquet", refuse),
    "metrics.json": refuse_file("metrics.json"),
    "weights.safetensors": refuse_file("weights.safetensors"),
    "environment.json": refuse_file("environment.json"),
    "the folder's name": lambda monkeypatch: monkeypatch.setattr(store_module.os, "rename", refuse),
}


@pytest.mark.parametrize("artefact", FAILURES)
def test_a_run_that_cannot_be_written_whole_leaves_only_its_checkpoint(
    artefact: str, runs: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.save_checkpoint(CONFIGURATION, state())
    before = names(runs.runs_dir)
    with monkeypatch.context() as patch:
        FAILURES[artefact](patch)
        with pytest.raises(InputError) as error:
            runs.save(CONFIGURATION, **artefacts())
    assert str(error.value) == (
        f"cannot write {runs.path(CONFIGURATION)}: No space left on device; free space or choose another runs_dir"
    )
    assert names(runs.runs_dir) == before
    assert not runs.exists(CONFIGURATION)
    assert runs.load_checkpoint(CONFIGURATION) is not None
    runs.save(CONFIGURATION, **artefacts())  # with space again, it goes on


def test_no_number_that_json_does_not_know_is_written(runs: RunStore) -> None:
    with pytest.raises(ValueError, match="JSON"):
        runs.save(CONFIGURATION, **artefacts() | {"metrics": {"loss": float("nan")}})
    assert not any(runs.runs_dir.rglob("*.json"))


FOLDERS = [PROJECT_ROOT / "tests" / name for name in (".", "support", "runs")]
FULL_DISK = """
import resource, signal, sys
from test_store import CONFIGURATION, artefacts, state
from audioclf_lib._support.errors import InputError
from audioclf_lib.runs.store import RunStore
import torch

runs = RunStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file may grow beyond: as where a disk is full
deeds = {
    "save": lambda: runs.save(CONFIGURATION, **artefacts(size=1_000) | {"predictions": artefacts()["predictions"]}),
    "save predictions": lambda: runs.save(CONFIGURATION, **artefacts(size=10_000)),
    "checkpoint": lambda: runs.save_checkpoint(CONFIGURATION, state() | {"model": torch.randn(100_000)}),
}
for name, deed in deeds.items():
    try:
        deed()
    except InputError as error:
        print(name, "-", error)
"""


@pytest.mark.slow
def test_a_full_disk_is_told_in_one_sentence_and_loses_nothing(runs: RunStore) -> None:
    """By a real limit on file sizes, which the libraries that write meet in their own ways."""
    runs.save_checkpoint(CONFIGURATION, state())
    before = names(runs.runs_dir)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(runs.runs_dir)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [PROJECT_ROOT, *FOLDERS]))},
        capture_output=True,
        text=True,
        check=True,
    )
    target, partial = runs.path(CONFIGURATION), runs.path(CONFIGURATION).with_name(f".{CONFIGURATION.fit_id}.partial")
    told = done.stdout.splitlines()
    assert len(told) == 3
    for line, (deed, place) in zip(
        told, {"save": target, "save predictions": target, "checkpoint": partial}.items(), strict=True
    ):
        assert line.startswith(f"{deed} - cannot write {place}: ")
        assert "File too large" in line
        assert line.endswith("; free space or choose another runs_dir")
    assert names(runs.runs_dir) == before
    assert_same_state(runs.load_checkpoint(CONFIGURATION), state())


@pytest.mark.parametrize("deed", ["save", "save_checkpoint"])
def test_a_place_that_cannot_be_written_is_told_in_one_sentence(deed: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    runs = RunStore(tmp_path / "file" / "runs")
    with pytest.raises(InputError, match=r"cannot write .*file/runs/tiny/.*; free space or choose another runs_dir"):
        if deed == "save":
            runs.save(CONFIGURATION, **artefacts())
        else:
            runs.save_checkpoint(CONFIGURATION, state())


def test_a_lock_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    runs = RunStore(tmp_path / "file" / "runs")
    with pytest.raises(InputError, match=r"^cannot lock .*\.lock: .*; free space or choose"), runs.lock(CONFIGURATION):
        pass


def test_an_error_of_the_work_under_the_lock_stays_what_it_is(runs: RunStore) -> None:
    with pytest.raises(OSError, match="of the work") as error, runs.lock(CONFIGURATION):
        raise OSError(5, "of the work")
    assert type(error.value) is OSError
    assert names(runs.runs_dir) == {"tiny"}


def test_a_holder_that_was_overtaken_keeps_the_run_that_is_there(runs: RunStore) -> None:
    """A file server gave its lock to another process while its host slept: that trained the fit to the same numbers."""
    first = runs.save(CONFIGURATION, **artefacts())
    stamps = {path: path.stat().st_mtime_ns for path in first.path.iterdir()}
    again = runs.save(CONFIGURATION, **artefacts())
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in first.path.iterdir()} == stamps
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name]


# --- checkpoints ---------------------------------------------------------------------------------------------------


def assert_same_state(one: Any, other: Any) -> None:
    if isinstance(other, Tensor):
        assert torch.equal(one, other)
    elif isinstance(other, dict):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert_same_state(one[key], value)
    else:
        assert one == other


def test_a_checkpoint_is_the_last_state_saved_until_the_run_is_whole(runs: RunStore) -> None:
    assert runs.load_checkpoint(CONFIGURATION) is None
    runs.save_checkpoint(CONFIGURATION, state())
    runs.save_checkpoint(CONFIGURATION, state() | {"epoch": 2})
    assert_same_state(runs.load_checkpoint(CONFIGURATION), state() | {"epoch": 2})
    assert runs.load_checkpoint(make_fit(make_dataset(), seed=5)) is None
    runs.save(CONFIGURATION, **artefacts())
    assert runs.load_checkpoint(CONFIGURATION) is None


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    runs: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.save_checkpoint(CONFIGURATION, state())
    before = names(runs.runs_dir)
    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "replace", refuse)
        with pytest.raises(InputError, match="No space left"):
            runs.save_checkpoint(CONFIGURATION, state() | {"epoch": 2})
    assert names(runs.runs_dir) == before
    assert_same_state(runs.load_checkpoint(CONFIGURATION), state())


class Trap:
    """An object that runs code when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.witness,))


def test_a_checkpoint_runs_no_code(runs: RunStore, tmp_path: Path) -> None:
    runs.save_checkpoint(CONFIGURATION, state())
    (path,) = runs.runs_dir.rglob(CHECKPOINT)
    buffer = io.BytesIO()
    torch.save({"epoch": Trap(tmp_path / "witness")}, buffer)
    for content in (buffer.getvalue(), sum_of(buffer.getvalue()).encode() + buffer.getvalue()):
        path.write_bytes(content)
        with pytest.raises(DamagedRunError, match=r"checkpoint\.pt is damaged"):
            runs.load_checkpoint(CONFIGURATION)
    assert not (tmp_path / "witness").exists()


def test_a_run_is_read_when_asked_for(runs: RunStore) -> None:
    run = runs.save(CONFIGURATION, **artefacts())
    assert isinstance(run, Run)
    shutil.rmtree(run.path)
    with pytest.raises(InputError, match=r"history\.csv is missing"):
        _ = run.history
