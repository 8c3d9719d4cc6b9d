"""Whatever a user gives that cannot be used ends in one sentence that names the culprit and the remedy, with exit
code 2, and changes nothing on disk. Input that is odd but good, at the end of this file, works."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import papermill
import pytest
import soundfile as sf
from archives import Server, make_zip
from audio_files import make_esc50, make_folder, tone
from commands import call, snapshot
from small_suite import notebook_path
from synthetic import write_run

import audioclf_lib.data as datasets
from audioclf_lib.config import SCHEMA_VERSION, Experiment, KnownDataset
from audioclf_lib.data import esc, load_dataset
from audioclf_lib.data.esc import ESC10_FOLDERS
from audioclf_lib.runs.checksums import SUMS, write_sums
from audioclf_lib.runs.store import ARTEFACTS, RunStore

Change = Callable[[Path], object]
HUGE = "9" * 5_000  # Python reads and writes no whole number of that many digits
DEEP = "[" * 100_000
LONG = "x" * 5_000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user works; downloads and decoded clips are kept there too, and there is no copy of ESC-10."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "DEFAULT_DATA_DIR", tmp_path / "data")
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path / "figures"))
    monkeypatch.delenv("AUDIOCLF_DATA", raising=False)
    return tmp_path


class Refusal:
    """Runs the command and sees that it refuses as it should."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys

    def __call__(self, arguments: list[str], culprit: str, remedy: str, *, after_progress: bool = False) -> None:
        before = snapshot(self.folder)
        self.capsys.readouterr()
        code = call(self.monkeypatch, *arguments)
        shown = self.capsys.readouterr()
        assert code == 2, shown
        *progress, sentence = shown.err.splitlines()
        assert bool(progress) == after_progress
        assert sentence.startswith("audioclf")
        assert culprit in sentence
        assert remedy in sentence
        assert re.search(r"\.$|[.!?] [A-Z]", sentence) is None, "one sentence, and no full stop"
        assert sentence.isprintable()
        assert len(sentence) < 1_500
        assert "Traceback" not in shown.out + shown.err
        assert snapshot(self.folder) == before


@pytest.fixture
def refuse(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(place, monkeypatch, capsys)


# --- parameters ----------------------------------------------------------------------------------------------------

# Arguments, what the sentence must name, and what it must say to do.
CONTROL_CHARACTERS = {
    "title that rings": ("title", "Sounds\a", "U+0007"),
    "title that turns around": ("title", "a\u202etpircs", "U+202E"),
    "author on two lines": ("authors", "A. B\nabstract: x", "U+000A"),
    "course that isolates": ("course", "x\u2066y", "U+2066"),
    "date with an escape": ("date", "\x1b[2J1 June", "U+001B"),
}

PARAMETERS: dict[str, tuple[list[str], str, str]] = {
    "unknown command": (["sweet"], "'sweet'", "`audioclf --help` lists"),
    "unknown option": (["suite", "--epocs", "3"], "--epocs", "Possible options: --epochs"),
    "too many arguments": (["data", "demo", "esc10"], "(esc10)", "`audioclf data --help` lists"),
    "no experiment": (["run"], "EXPERIMENT|MODEL|NOTEBOOK", "`audioclf run --help` lists"),
    "unknown data set": (["data", "esc11"], "'esc11'", "neither demo, nor esc10, nor a folder"),
    "data set of an unknown user": (["data", "~nobody-of-this-name/x"], "~nobody-of-this-name", "correct it"),
    "data set with an endless name": (["data", LONG], "xxx", "correct it"),
    "data set for the suite unknown": (["suite", "--dataset", "nonsense"], "'nonsense'", "check the name or the path"),
    "classes of ESC-10 in the demo set": (["data", "demo:esc10"], "'demo'", "leave it out"),
    "clip length for the demo set": (["data", "demo:4s"], "'demo'", "leave it out"),
    "folds for the demo set": (
        ["data", "demo", "--make-folds", "4"],
        "'demo' has folds",
        "own folder alone",
    ),
    "sources for the demo set": (
        ["data", "demo", "--source-pattern", "x"],
        "'demo' has folds",
        "own folder",
    ),
    "folds in words": (["data", "demo", "--make-folds", "four"], "--make-folds", "an integer"),
    "no epochs": (["suite", "--epochs", "0"], "epochs = 0", "greater than or equal to 1"),
    "negative epochs": (["suite", "--epochs", "-3"], "epochs = -3", "greater than or equal to 1"),
    "epochs in words": (["suite", "--epochs", "ten"], "--epochs", "an integer"),
    "half an epoch": (["suite", "--epochs", "2.5"], "--epochs", "an integer"),
    "very many epochs": (["suite", "--epochs", "1" + "0" * 30], "epochs = 1000", "less than or equal to 100000"),
    "more digits than Python reads": (["suite", "--epochs", HUGE], "--epochs", "`audioclf suite --help` lists"),
    "negative seed": (["suite", "--seeds", "-1"], "seed = -1", "greater than or equal to 0"),
    "seed beyond 32 bits": (["suite", "--seeds", "4294967296"], "seed = 4294967296", "less than 4294967296"),
    "seed twice": (["suite", "--seeds", "3,3"], "3 is named twice", "name each once"),
    "seeds between semicolons": (["suite", "--seeds", "1;2"], "'1;2'", "it must be an integer"),
    "no seeds": (["suite", "--seeds", ""], "seeds.0 = ''", "it must be an integer"),
    "negative test fold": (["suite", "--test-fold", "-1"], "test_fold = -1", "greater than or equal to 0"),
    "test fold that is not there": (["suite", "--test-fold", "9"], "fold 9", "its folds are [1, 2, 3, 4, 5]"),
    "test fold that is not there, one run": (["run", "cnn-split", "--test-fold", "9"], "fold 9", "its folds are [1, 2"),
    "unknown recipe": (["suite", "--recipe", "best"], "'best'", "'as-written', 'tuned'"),
    "changes that are no JSON": (["suite", "--recipe-changes", "dropout"], "'dropout'", '{"dropout": 0.2}'),
    "changes that are a list": (
        ["suite", "--recipe-changes", "[0.3]"],
        "recipe_changes = [0.3]",
        "set of name: value pairs",
    ),
    "changes that nest without end": (["suite", "--recipe-changes", DEEP], "'[[[", '{"dropout": 0.2}'),
    "unknown change": (["suite", "--recipe-changes", '{"dropot": 1}'], "'dropot'", "known are dropout, activation"),
    "change of what is no setting": (["suite", "--recipe-changes", '{"self": 1}'], "'self'", "known are dropout"),
    "change to NaN": (["suite", "--recipe-changes", '{"dropout": NaN}'], "dropout = nan", "finite number"),
    "change to infinity": (
        ["suite", "--recipe-changes", '{"max_grad_norm": 1e999}'],
        "max_grad_norm = inf",
        "finite number",
    ),
    "truth for a number": (
        ["suite", "--recipe-changes", '{"batch_size": true}'],
        "batch_size = True",
        "write a number",
    ),
    "truth for a rate": (["suite", "--recipe-changes", '{"dropout": false}'], "dropout = False", "write a number"),
    "number for a truth": (["suite", "--recipe-changes", '{"drop_silent": 2}'], "drop_silent = 2", "boolean"),
    "change without end": (
        ["suite", "--recipe-changes", f'{{"batch_size": {HUGE}}}'],
        "batch_size",
        "write for example",
    ),
    "unknown device": (["suite", "--device", "tpu"], "'tpu'", "'auto', 'cpu', 'cuda', 'mps'"),
    "device that is not present": (["suite", "--device", "mps"], "'mps'", "choose auto or one of"),
    "device that is not present, one run": (["run", "cnn-split", "--device", "mps"], "'mps'", "choose auto or one of"),
    "device that is not present, jobs given": (["suite", "--device", "mps", "--jobs", "2"], "'mps'", "choose auto"),
    "nowhere to run": (["suite", "--on", "mars"], "'mars'", "give dask, laptop, slurm, or a folder"),
    "no job": (["suite", "--jobs", "0"], "--jobs", "greater than or equal to 1"),
    "unknown experiment": (["run", "rnn-kfold"], "'rnn-kfold'", "notebooks are 01_dataset"),
    "no head": (["run", "transformer-h0-kfold"], "num_heads = 0", "greater than or equal to 1"),
    "more heads than features": (["run", "transformer-h251-split"], "num_heads = 251", "less than or equal to 250"),
    "heads without end": (["run", f"transformer-h{HUGE}-split"], "transformer-h999", "correct it"),
    "heads for the CNN": (["run", "cnn-h2-kfold"], "'num_heads' for model cnn", "known are model"),
    "heads for the CNN as a parameter": (["run", "cnn-kfold", "-p", "num_heads=2"], "'num_heads'", "known are model"),
    "model against the name": (
        ["run", "cnn-kfold", "-p", "model=transformer"],
        "cnn-kfold",
        "leave the parameter model out",
    ),
    "heads against the name": (
        ["run", "transformer-h2-split", "-p", "num_heads=4"],
        "num_heads",
        "leave the parameter",
    ),
    "parameter without a value": (["run", "cnn-kfold", "-p", "epochs"], "'epochs'", "write it as name=value"),
    "parameter that is no name": (["run", "cnn-kfold", "-p", "my epochs=3"], "'my epochs=3'", "write it as name=value"),
    "unknown parameter": (["run", "cnn-kfold", "-p", "colour=3"], "'colour'", "known are model, model_settings"),
    "parameter called self": (["run", "cnn-kfold", "-p", "self=3"], "'self'", "known are model, model_settings"),
    "NaN for a whole number": (["run", "cnn-kfold", "-p", "epochs=NaN"], "epochs = nan", "finite number"),
    "truth for epochs": (["run", "cnn-kfold", "-p", "epochs=true"], "epochs = True", "write a number"),
    "list for epochs": (["run", "cnn-kfold", "-p", "epochs=[1, 2]"], "epochs = [1, 2]", "an integer"),
    "epochs without end": (["run", "cnn-kfold", "-p", f"epochs={HUGE}"], "epochs = '999", "exceeded maximum size"),
    "validation on the test fold": (
        ["run", "cnn-kfold", "-p", "val_folds=[1, 2]"],
        "val_folds = [1, 2]",
        "take it out",
    ),
    "negative validation fold": (["run", "cnn-kfold", "-p", "val_folds=[-2]"], "val_folds.0 = -2", "greater than"),
    "truth for a fold": (["run", "cnn-kfold", "-p", "val_folds=[true]"], "val_folds = [True]", "write a number"),
    "fold twice": (["run", "cnn-kfold", "-p", "val_folds=[2, 2]"], "val_folds = [2, 2]", "name each once"),
    "validation folds of the split": (["run", "cnn-split", "-p", "val_folds=[3]"], "val_folds", "chooses its own"),
    "validation fold that is not there": (["run", "cnn-kfold", "-p", "val_folds=[7]"], "fold 7", "its folds are [1, 2"),
    "parameter that a notebook lacks": (["run", "11_cnn_split", "-p", "num_heads=2"], "'num_heads'", "it has dataset"),
    "unknown study": (["tune", "best"], "there is no study 'best'", "choose one of cnn, transformer"),
    "study that is not there": (["tune", "mine.yaml"], "there is no study 'mine.yaml'", "give a .yaml file"),
    "no trial": (["tune", "--trials", "0"], "trials = 0", "greater than or equal to 1"),
    "no epochs for a study": (["tune", "--epochs", "0"], "epochs = 0", "greater than or equal to 1"),
    "data set for a study unknown": (["tune", "--dataset", "nonsense"], "'nonsense'", "check the name or the path"),
    "device that is not present, study": (["tune", "--device", "mps"], "'mps'", "choose auto or one of"),
    "unknown home of a study": (["tune", "--runs-dir", "~no-such-user/runs"], "'~no-such-user", "correct it"),
    "unknown format": (["report", "--formats", "odt"], "'odt'", "choose from pdf, html, docx, md"),
    "no format": (["report", "--formats", ""], "format ''", "choose from pdf, html"),
    **{
        name: (["report", f"--{field}", text], f"text for {field} holds the control character {code}", "take it out")
        for name, (field, text, code) in CONTROL_CHARACTERS.items()
    },
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameters(refuse: Refusal, case: str) -> None:
    arguments, culprit, remedy = PARAMETERS[case]
    if arguments[0] in ("suite", "run", "report", "tune") and len(arguments) > 1 and "--runs-dir" not in arguments:
        arguments = [*arguments, "--runs-dir", "runs"]
    refuse(arguments, culprit, remedy)


ONE = "experiments: [{model: cnn, protocol: split}]\n"
LAUGHS = "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))  # 9 to the power of 9 items

# The text of a plan, what the sentence must name beside the file, and what it must say to do.
PLANS: dict[str, tuple[str | bytes, str, str]] = {
    "empty": ("", "holds no settings", "write lines such as"),
    "list": ("- a\n- b", "holds no settings", "write lines such as"),
    "open bracket": (ONE + "epochs: [", "not valid YAML", "correct line 2"),
    "no text": (b"\xff\xfe\x00\x01", "not valid YAML", "correct the text"),
    "code to run": (ONE + "name: !!python/object/apply:os.system ['touch pwned']", "not valid YAML", "correct line 2"),
    "object to make": (ONE + "name: !!python/name:os.system", "not valid YAML", "correct line 2"),
    "impossible date": (ONE + "name: 2025-99-99", "not valid YAML", "correct"),
    "number without end": (ONE + f"epochs: {HUGE}", "not valid YAML", "correct"),
    "hexadecimal number without end": (
        ONE + "epochs: 0x" + "f" * 5_000,
        "epochs = a number of too many digits",
        "100000",
    ),
    "nested without end": (ONE + f"name: {DEEP}", "not valid YAML", "correct"),
    "a billion laughs": (
        f"a0: &a0 [ha]\n{LAUGHS}" + ONE + "epochs: *a9",
        "unknown setting 'a0'",
        "known are name, dataset",
    ),
    "a billion laughs for seeds": (
        f"a0: &a0 [ha]\n{LAUGHS.replace('a9:', 'seeds:')}" + ONE,
        "seeds.0 = [",
        "an integer",
    ),
    "unknown setting": (ONE + "epoch: 3", "'epoch'", "known are name, dataset, epochs"),
    "NaN": (ONE + "epochs: .nan", "epochs = nan", "finite number"),
    "truth for a number": (ONE + "epochs: yes", "epochs = True", "write a number"),
    "truth for a seed": (ONE + "seeds: [true]", "seeds = [True]", "write a number"),
    "number for a text": (ONE + "dataset: 5", "dataset = 5", "a string"),
    "no experiment": ("experiments: []", "experiments = []", "at least 1 item"),
    "experiments left out": ("epochs: 3", "'experiments' is missing", "give it a value"),
    "number for a setting's name": ("experiments: [{1: cnn}]", "experiments = [{1: 'cnn'}]", "write name: value"),
    "unknown model": ("experiments: [{model: lstm, protocol: split}]", "'lstm'", "choose one of cnn, transformer"),
    "experiment twice": (ONE.replace("}]", "}, {model: cnn, protocol: split}]"), "named twice", "name each once"),
    "experiment with a slip": (
        ONE.replace("split}", "split, head: 2}"),
        "setting 'head' for model cnn",
        "known are model, model_settings",
    ),
    "empty list of recipes": (ONE + "recipe: []", "the list for 'recipe' is empty", "give it at least one value"),
    "empty list of heads": (
        "experiments: [{model: transformer, num_heads: [], protocol: split}]",
        "'num_heads' is empty",
        "give it at least one value",
    ),
    "recipe twice": (ONE + "recipe: [tuned, tuned]", "'tuned' is named twice in 'recipe'", "name each once"),
    "rate twice": (ONE + "learning_rate: [0.001, 1.0e-3]", "0.001 is named twice in 'learning_rate'", "name each"),
    "folder twice": (ONE + "dataset: [./sounds, sounds/]", "sounds' is named twice", "name each"),
    "unknown recipe in a list": (ONE + "recipe: [tuned, best]", "recipe = 'best'", "'as-written' or 'tuned'"),
    "test fold that is no number in a list": (ONE + "test_fold: [1, one]", "test_fold = 'one'", "an integer"),
    "truth in a list of test folds": (ONE + "test_fold: [2, true]", "test_fold = [2, True]", "write a number"),
    "list in a list": (ONE + "test_fold: [1, [2, 3]]", "test_fold = [2, 3]", "an integer"),
    "nothing in a list": (ONE + "recipe: [tuned, null]", "recipe = None", "'as-written' or 'tuned'"),
    "impossible head count in a list": (
        "experiments: [{model: transformer, num_heads: [1, 251], protocol: split}]",
        "num_heads = 251",
        "less than or equal to 250",
    ),
    "truth in a list of head counts": (
        "experiments: [{model: transformer, num_heads: [2, true], protocol: split}]",
        "num_heads = True",
        "write a number",
    ),
    "heads for the CNN in a list": (
        "experiments: [{model: cnn, num_heads: [1, 2], protocol: split}]",
        "'num_heads' for model cnn",
        "known are model",
    ),
    "protocol twice in a list": (
        "experiments: [{model: cnn, protocol: [split, split]}]",
        "'split' is named twice in 'protocol'",
        "name each once",
    ),
    "experiment twice by way of a list": (
        "experiments: [{model: cnn, protocol: [split, kfold]}, {model: cnn, protocol: kfold}]",
        "'protocol': 'kfold'} is named twice in 'experiments'",
        "name each once",
    ),
    "far too many combinations": (
        ONE + f"learning_rate: {[rate / 1000 for rate in range(1, 600)]}\ntest_fold: [1, 2]",
        "1,198 combinations",
        "at most 1,000",
    ),
    "list without end": (ONE + f"test_fold: {list(range(5_000))}", "make 5,000 combinations", "at most 1,000"),
    "rate in two places": (
        ONE + "learning_rate: 0.1\nrecipe_changes: {learning_rate: 0.2}",
        "learning_rate is given, and recipe_changes too",
        "write it in one of them",
    ),
    "rate that is none": (ONE + "learning_rate: [0.1, fast]", "learning_rate = 'fast'", "a number"),
    "rate beyond all bounds": (ONE + "learning_rate: 3", "learning_rate = 3", "less than or equal to 1"),
    "data set of one experiment": (
        ONE.replace("split}", "split, dataset: esc10}"),
        "dataset is no setting of one experiment",
        "take it out",
    ),
    "file of a model that is not there": (
        "experiments: [{model: my_net.py, protocol: split}]",
        "my_net.py: No such file or directory",
        "give the path of a .py file",
    ),
    "ablation without end": (ONE + "ablation: {epochs: 0}", "epochs = 0", "greater than or equal to 1"),
    "spread folds, how far": (ONE + "spread_folds: 4", "spread_folds = 4", "a boolean"),
    "spread folds in a list": (ONE + "spread_folds: [true, false]", "spread_folds = [True, False]", "a boolean"),
    "name that turns around": (ONE + 'name: "a\\u202Eb"', "control character U+202E", "take it out"),
    "folder with NUL": (ONE + 'dataset: "a\\0b/c"', "'a\\x00b/c'", "correct it"),
}


@pytest.mark.parametrize(
    ("command", "case"), [*(("suite", case) for case in PLANS), ("report", "empty"), ("report", "unknown setting")]
)
def test_plans(refuse: Refusal, place: Path, case: str, command: str) -> None:
    content, culprit, remedy = PLANS[case]
    (place / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    refuse([command, "--plan", "mine.yaml", "--runs-dir", "runs"], culprit, remedy)


SEARCHED = "model: cnn\nsearch: {dropout: {low: 0.1, high: 0.5}}\n"

# The text of a study, what the sentence must name beside the file, and what it must say to do.
STUDIES: dict[str, tuple[str, str, str]] = {
    "empty": ("", "holds no settings", "write lines such as"),
    "open bracket": (SEARCHED + "epochs: [", "not valid YAML", "correct line 3"),
    "nothing searched": ("model: cnn", "'search' is missing", "give it a value"),
    "search that is a list": ("model: cnn\nsearch: [dropout]", "search = ['dropout']", "set of name: value pairs"),
    "unknown setting searched": (SEARCHED.replace("dropout", "dropot"), "'dropot'", "known are dropout, activation"),
    "bad range": (SEARCHED.replace("0.1", "0.9"), "low = 0.9 is not below high = 0.5", "put them in order"),
    "range without end": (SEARCHED.replace("0.5", ".inf"), "inf", "finite number"),
    "range beyond the setting": (SEARCHED.replace("0.5", "1.0"), "dropout = 1.0", "less than 1"),
    "searched and fixed": (
        SEARCHED + "recipe_changes: {dropout: 0.3}",
        "dropout is both searched and fixed",
        "take it out of one of them",
    ),
    "setting of the other architecture": (
        SEARCHED.replace("dropout", "encoder_lr_scale"),
        "encoder_lr_scale changes nothing",
        "take it out",
    ),
    "validation fold that is not there": (SEARCHED + "val_fold: 9", "fold 9", "its folds are [1, 2, 3, 4, 5]"),
    "name that is a path": (SEARCHED + "name: ../x", "'../x'", "pattern"),
}


@pytest.mark.parametrize("case", STUDIES)
def test_studies(refuse: Refusal, place: Path, case: str) -> None:
    content, culprit, remedy = STUDIES[case]
    (place / "mine.yaml").write_text(content)
    refuse(["tune", "mine.yaml", "--runs-dir", "runs"], culprit, remedy)


def plan_loop(folder: Path) -> None:
    (folder / "mine.yaml").symlink_to("mine.yaml")


def write_one_run(runs_dir: Path) -> None:
    (config,) = Experiment(model="cnn", protocol="split", epochs=2).fits(SOUNDS)
    write_run(RunStore(runs_dir), config, n_windows=1, silent_windows=0)


PLACES: dict[str, tuple[Change, list[str], str, str]] = {
    "unknown plan": (lambda folder: None, ["suite", "--plan", "nonsense"], "'nonsense'", "choose one of demo, full"),
    "unknown plan, report": (lambda folder: None, ["report", "--plan", "best"], "'best'", "choose one of demo, full"),
    "plan that is not there": (lambda folder: None, ["suite", "--plan", "mine.yaml"], "mine.yaml", "check the path"),
    "plan that links to itself": (plan_loop, ["suite", "--plan", "mine.yaml"], "'mine.yaml'", "correct it"),
    "plan of a folder that is not there": (
        lambda folder: (folder / "mine.yaml").write_text(ONE + "dataset: ./elsewhere"),
        ["suite", "--plan", "mine.yaml"],
        "elsewhere' is neither",
        "check the name or the path",
    ),
    "plan that is a folder": (
        lambda folder: (folder / "mine.yaml").mkdir(),
        ["suite", "--plan", "mine.yaml"],
        "mine.yaml",
        "check the path",
    ),
    "report of several data sets": (
        lambda folder: (folder / "mine.yaml").write_text(ONE + "dataset: [demo, esc10]"),
        ["report", "--plan", "mine.yaml", "--runs-dir", "runs"],
        "mine.yaml has several data sets (demo, esc10)",
        "choose one of them with --dataset",
    ),
    "report of several data sets, the last": (
        lambda folder: (
            (folder / "runs").mkdir() or (folder / "runs" / "plan.yaml").write_text(ONE + "dataset: [demo, esc10]")
        ),
        ["report", "--runs-dir", "runs"],
        "runs/plan.yaml has several data sets (demo, esc10)",
        "choose one of them with --dataset",
    ),
    "colon behind a plan": (
        lambda folder: (folder / "mine.yaml").write_text(ONE),
        ["suite", "--plan", "mine.yaml:tuned"],
        "there is no plan 'mine.yaml:tuned'",
        "choose one of demo, full",
    ),
    "last plan damaged": (
        lambda folder: (folder / "runs").mkdir() or (folder / "runs" / "plan.yaml").write_text("{"),
        ["report", "--runs-dir", "runs"],
        "runs/plan.yaml",
        "correct line 1",
    ),
    "no notebook of that name": (
        lambda folder: None,
        ["run", "mine.ipynb"],
        "'mine.ipynb'",
        "notebooks are 01_dataset",
    ),
    "notebook of 0 bytes": (
        lambda folder: (folder / "mine.ipynb").touch(),
        ["run", "mine.ipynb"],
        "mine.ipynb is not a notebook",
        "give the path of an .ipynb file",
    ),
    "notebook that is text": (
        lambda folder: (folder / "mine.ipynb").write_text("print('hello')"),
        ["run", "mine.ipynb"],
        "mine.ipynb is not a notebook",
        "give the path of an .ipynb file",
    ),
    "notebook that is other JSON": (
        lambda folder: (folder / "mine.ipynb").write_text('{"cells": 3, "nbformat": 4}'),
        ["run", "mine.ipynb"],
        "mine.ipynb is not a notebook",
        "give the path of an .ipynb file",
    ),
    "runs in a file": (
        lambda folder: (folder / "runs").touch(),
        ["suite", "--runs-dir", "runs", "--dataset", "sounds"],
        "cannot write runs",
        "choose another",
    ),
    "runs below a file": (
        lambda folder: (folder / "file").touch(),
        ["suite", "--runs-dir", "file/runs", "--dataset", "sounds"],
        "file/runs",
        "choose another",
    ),
    "runs in an endless name": (
        lambda folder: None,
        ["suite", "--runs-dir", LONG, "--dataset", "sounds"],
        "xxx",
        "correct it",
    ),
    "runs of a report in a file": (
        lambda folder: (folder / "runs").touch(),
        ["report", "--runs-dir", "runs", "--plan", "demo"],
        "runs",
        "train some with `audioclf suite",
    ),
    "report into a file": (
        lambda folder: ((folder / "out").touch(), write_one_run(folder / "runs")),
        ["report", "--runs-dir", "runs", "--output-dir", "out/report"],
        "cannot write out/report: Not a directory",
        "choose another folder",
    ),
    "executed notebook into a folder": (
        lambda folder: (folder / "out").mkdir(),
        ["run", "01_dataset", "--output", "out"],
        "out is a folder",
        "name the file",
    ),
    "executed notebook below a file": (
        lambda folder: (folder / "out").touch(),
        ["run", "01_dataset", "--output", "out/mine.ipynb"],
        "out/mine.ipynb",
        "choose another place",
    ),
    "notebooks nowhere": (
        lambda folder: None,
        ["suite", "--notebooks-dir", "nowhere", "--runs-dir", "runs", "--dataset", "sounds"],
        "nowhere/01_dataset.ipynb",
        "--notebooks-dir",
    ),
}


@pytest.mark.parametrize("case", PLACES)
def test_places(refuse: Refusal, place: Path, case: str) -> None:
    prepare, arguments, culprit, remedy = PLACES[case]
    make_folder(place / "sounds")
    if "sounds" in arguments:  # somebody looked at it before, so its clips are in the cache
        load_dataset(place / "sounds")
    prepare(place)
    refuse(arguments, culprit, remedy)


@pytest.mark.parametrize("variable", ["/no/such/folder", ".", "~nobody-of-this-name/x"])
def test_a_variable_that_leads_nowhere(refuse: Refusal, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("AUDIOCLF_DATA", variable)
    refuse(["data", "esc10"], f"'{variable}'", "correct it" if variable[0] == "~" else "or unset it")


# --- data ----------------------------------------------------------------------------------------------------------


def table(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = next(path for path in (folder / "labels.csv", folder / "meta" / "esc50.csv") if path.exists())
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


def put(column: str, value: str, row: int = 0) -> Change:
    """Overwrite one entry of the table."""

    def change(clips: pd.DataFrame) -> pd.DataFrame:
        clips.loc[row, column] = value
        return clips

    return lambda folder: table(folder, change)


def keep(rows: Callable[[pd.DataFrame], Any]) -> Change:
    """Keep some rows of the table only."""
    return lambda folder: table(folder, lambda clips: clips[rows(clips)])


def drop_column(column: str) -> Change:
    return lambda folder: table(folder, lambda clips: clips.drop(columns=column))


def with_sample(value: float) -> Change:
    def write(folder: Path) -> None:
        samples = tone()
        samples[5_000] = value
        sf.write(folder / "high-2.wav", samples, 16_000, subtype="FLOAT")

    return write


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def truncate(folder: Path) -> None:
    sf.write(folder / "high-2.flac", tone(), 16_000)
    path = (folder / "high-2.flac").rename(folder / "high-2.wav")
    path.write_bytes(path.read_bytes()[:4_000])


def link_to_itself(name: str) -> Change:
    def link(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(name)

    return link


def pipe(folder: Path) -> None:
    (folder / "high-2.wav").unlink()
    os.mkfifo(folder / "high-2.wav")


def one_recording_in_two_folds(folder: Path) -> None:
    table(folder, lambda clips: clips.assign(source=["walk.wav", "b", "c", "d", "walk.wav", "f"]))


def same_file_spelled_twice(folder: Path) -> None:
    row = {"filename": "./low-1.wav", "label": "low", "fold": "1"}
    table(folder, lambda clips: pd.concat([clips, pd.DataFrame([row])]))


def no_phone_sound(folder: Path) -> None:
    (folder / "x.m4a").write_bytes(b"no sound at all")
    put("filename", "x.m4a")(folder)


HEAD = b"filename,label,fold\n"

# What is done to a good folder, what the sentence must name, and what it must say to do.
FOLDER_FAULTS: dict[str, tuple[Change, str, str]] = {
    "missing folder": (shutil.rmtree, "sounds' is neither", "check the name or the path"),
    "folder is a file": (
        lambda folder: shutil.rmtree(folder) or folder.touch(),
        "sounds' is neither",
        "check the name",
    ),
    "folder links to itself": (
        lambda folder: shutil.rmtree(folder) or folder.symlink_to(folder),
        "levels",
        "correct it",
    ),
    "no table": (lambda folder: (folder / "labels.csv").unlink(), "sounds holds sounds", "write a labels.csv"),
    "table links to itself": (link_to_itself("labels.csv"), "sounds holds sounds", "write a labels.csv"),
    "empty table": (write("labels.csv", b""), "no column 'filename'", "write a table with"),
    "table without rows": (write("labels.csv", HEAD), "no clips", "list at least one"),
    "table is no text": (write("labels.csv", HEAD + b"\xff\xfe\x81,a,1\n"), "labels.csv cannot be read", "UTF-8"),
    "table is a sound": (
        lambda folder: shutil.copy(folder / "low-1.wav", folder / "labels.csv"),
        "labels.csv",
        "table",
    ),
    "line too long": (write("labels.csv", HEAD + b"a.wav,x,1\nb.wav,x,1,y\n"), "labels.csv, line 3", "quotes around"),
    "first line too long": (write("labels.csv", HEAD + b"x,a.wav,x,1\n"), "line 2: there are 4 entries", "put one in"),
    "line too short": (
        write("labels.csv", HEAD + b"a.wav,x,1\nb.wav,x\n"),
        "line 3: there are 2 entries",
        "put one in",
    ),
    "open quote": (write("labels.csv", HEAD + b'"a.wav,x,1\n'), "labels.csv cannot be read", "save it as"),
    "entry without end": (write("labels.csv", HEAD + b"a" * 200_000), "labels.csv cannot be read", "save it as"),
    "no filename column": (drop_column("filename"), "no column 'filename' or 'file'", "write a table with"),
    "no label column": (drop_column("label"), "no column 'label' or 'class'", "write a table with"),
    "no fold column, and few files": (drop_column("fold"), "'high' has 3, 'low' has 3", "--make-folds 3"),
    "two columns for the label": (
        write("labels.csv", b"filename,Class,category,fold\na.wav,x,y,1\n"),
        "two columns for 'label', 'Class' and 'category'",
        "write a table with",
    ),
    "labels that differ by case": (put("label", "Low"), "'Low' and 'low' differ by case alone", "write them alike"),
    "sound of a phone that is none": (no_phone_sound, "x.m4a ", "ffmpeg"),
    "two tables": (
        lambda folder: shutil.copy(folder / "labels.csv", folder / "Labels.CSV"),
        "sounds has ",
        "leave one of them",
    ),
    "column twice": (
        write("labels.csv", b"filename,label,fold, label\na.wav,x,1,y\n"),
        "two columns for 'label'",
        "write a",
    ),
    "empty label": (put("label", "", row=1), "labels.csv, line 3", "fill it in or drop the line"),
    "empty filename": (put("filename", "", row=1), "labels.csv, line 3", "fill it in or drop the line"),
    "label that turns around": (put("label", "lo\u202ew"), "control character U+202E", "take it out"),
    "label on two lines": (put("label", "lo\nw"), "control character U+000A", "take it out"),
    "label of an average": (put("label", "macro"), "class 'macro'", "give it another"),
    "fold is a word": (put("fold", "train", row=2), "line 4: fold 'train'", "write such a number"),
    "fold is negative": (put("fold", "-1"), "line 2: fold '-1'", "write such a number"),
    "fold is broken": (put("fold", "1.5"), "line 2: fold '1.5'", "write such a number"),
    "fold is empty": (put("fold", ""), "line 2: fold ''", "write such a number"),
    "fold of another alphabet": (put("fold", "\N{ARABIC-INDIC DIGIT ONE}"), "line 2: fold", "write such a number"),
    "fold without end": (put("fold", HUGE), "line 2: fold '999", "write such a number"),
    "two folds": (keep(lambda clips: clips["fold"] != "3"), "the folds [1, 2]", "3 or more"),
    "one class": (keep(lambda clips: clips["label"] == "low"), "['low']", "give two or more"),
    "clip listed twice": (put("filename", "low-1.wav", row=1), "'low-1.wav' twice", "list every clip once"),
    "clip listed twice in two spellings": (same_file_spelled_twice, "'low-1.wav' twice", "list every clip once"),
    "one recording in two folds": (one_recording_in_two_folds, "'walk.wav' in folds [1, 3]", "in one fold"),
    "class missing in a fold": (put("label", "low", row=3), "'high' in fold 2", "one of each class"),
    "missing file": (
        lambda folder: (folder / "high-2.wav").unlink(),
        "high-2.wav' cannot be opened (No such",
        "restore the file",
    ),
    "file outside": (
        put("filename", "../secret.wav"),
        "line 2: filename '../secret.wav' leads out",
        "put the file into",
    ),
    "file outside by a detour": (put("filename", "a/../../secret.wav"), "leads out of the folder", "put the file into"),
    "file outside by backslashes": (put("filename", "..\\secret.wav"), "leads out of the folder", "put the file into"),
    "file with an absolute path": (put("filename", "/etc/passwd"), "'/etc/passwd' leads out", "put the file into"),
    "file on a drive": (put("filename", "C:\\secret.wav"), "leads out of the folder", "put the file into"),
    "file with NUL": (put("filename", "a\0b.wav"), "control character U+0000", "take it out"),
    "file with a bell": (put("filename", "low\a.wav"), "control character U+0007", "take it out"),
    "file with an endless name": (put("filename", LONG), "cannot be opened (File name too long)", "correct its name"),
    "file is a folder": (put("filename", "."), "sounds is no file", "put a sound file in its place"),
    "file is a pipe": (pipe, "high-2.wav is no file", "put a sound file in its place"),
    "file links to itself": (
        link_to_itself("high-2.wav"),
        "high-2.wav' cannot be opened (Too many",
        "correct its name",
    ),
    "0-byte file": (write("high-2.wav", b""), "high-2.wav cannot be read as sound", "give a WAV"),
    "truncated file": (truncate, "high-2.wav cannot be read", "give a WAV, FLAC, Ogg or MP3 file"),
    "file is text": (write("high-2.wav", b"no sound at all"), "high-2.wav cannot be read as sound", "give a WAV"),
    "file is noise": (write("high-2.wav", bytes(range(256)) * 40), "high-2.wav cannot be read as sound", "give a WAV"),
    "header only": (lambda folder: sf.write(folder / "high-2.wav", tone(0), 16_000), "no samples", "export it anew"),
    "rate too low": (lambda folder: sf.write(folder / "high-2.wav", tone(), 10), "10 Hz", "give 1000 Hz or more"),
    "NaN": (with_sample(float("nan")), "high-2.wav has samples that are NaN", "export it anew or leave it out"),
    "infinite": (with_sample(float("-inf")), "high-2.wav has samples", "export it anew or leave it out"),
}


@pytest.mark.parametrize("case", FOLDER_FAULTS)
def test_own_folder(refuse: Refusal, place: Path, case: str) -> None:
    damage, culprit, remedy = FOLDER_FAULTS[case]
    folder = make_folder(place / "sounds")
    damage(folder)
    refuse(["data", str(folder)], culprit, remedy)


@pytest.mark.parametrize("case", ["missing file", "file is a pipe", "file is a folder", "0-byte file", "NaN"])
def test_own_folder_with_a_given_length(refuse: Refusal, place: Path, case: str) -> None:
    """Then no header is read before the files are hashed."""
    damage, culprit, _ = FOLDER_FAULTS[case]
    folder = make_folder(place / "sounds")
    damage(folder)
    refuse(["data", f"{folder}:1s"], culprit, "")


@pytest.mark.parametrize("length", ["0s", "0.5s", "601s", "99999999999999999999s"])
def test_impossible_lengths(refuse: Refusal, place: Path, length: str) -> None:
    folder = make_folder(place / "sounds")
    refuse(["data", f"{folder}:{length}"], "clips of ", "choose 1 (one window) to 600 seconds")


def test_folds_that_are_not_there_are_told_before_anything_is_decoded(refuse: Refusal, place: Path) -> None:
    make_folder(place / "sounds")
    for command in (["suite"], ["suite", "--dry-run"], ["run", "cnn-split"]):
        arguments = [*command, "--dataset", "sounds", "--test-fold", "4", "--runs-dir", "runs"]
        refuse(arguments, "fold 4 is not in data set", "its folds are [1, 2, 3]")


ESC50_FAULTS: dict[str, tuple[Change, str, str]] = {
    "no category column": (drop_column("category"), "no column 'label' or 'category'", "write a table with"),
    "no source column": (drop_column("src_file"), "no column 'source' or 'srcfile'", "write a table with"),
    "unknown class": (
        put("category", "unicorn", row=4),
        "esc50.csv, line 6: there is target 0 for 'unicorn' and for 'dog'",
        "a target of its own",
    ),
    "unknown fold": (put("fold", "6"), "no clip of class 'dog' in fold 1", "one of each class"),
    "file outside": (put("filename", "../../secret.wav"), "esc50.csv, line 2", "put the file into it"),
    "missing clip": (
        lambda folder: (folder / "audio" / "2-2001-A-1.wav").unlink(),
        "2-2001-A-1.wav",
        "restore the file",
    ),
    "no audio folder": (lambda folder: shutil.rmtree(folder / "audio"), "1-1000-A-0.wav", "restore the file"),
    "recording in two folds": (put("src_file", "2000"), "'2000' in folds [1, 2]", "in one fold"),
}


@pytest.mark.parametrize("case", ESC50_FAULTS)
def test_esc50(refuse: Refusal, place: Path, case: str) -> None:
    damage, culprit, remedy = ESC50_FAULTS[case]
    folder = make_esc50(place / "ESC-50", {"dog": True, "pig": False})
    damage(folder)
    refuse(["data", "ESC-50"], culprit, remedy)


ESC10_FAULTS: dict[str, tuple[Change, str]] = {
    "wrong checksum": (lambda clip: clip.write_bytes(clip.read_bytes()[:-1] + b"?"), "1-100032-A.ogg' has the wrong"),
    "truncated": (lambda clip: clip.write_bytes(clip.read_bytes()[:5_000]), "1-100032-A.ogg' has the wrong checksum"),
    "0-byte file": (lambda clip: clip.write_bytes(b""), "1-100032-A.ogg' has the wrong checksum"),
    "missing clip": (lambda clip: clip.unlink(), "1-100032-A.ogg' is missing"),
    "missing class": (lambda clip: shutil.rmtree(clip.parent), "' is missing"),
}


@pytest.mark.parametrize("case", ESC10_FAULTS)
def test_esc10(refuse: Refusal, place: Path, real_esc10: Path, case: str) -> None:
    damage, culprit = ESC10_FAULTS[case]
    folder = place / "ESC-10"
    for name in ESC10_FOLDERS:
        (folder / name).mkdir(parents=True)
        for clip in (real_esc10 / name).glob("*.ogg"):
            (folder / name / clip.name).symlink_to(clip)
    victim = folder / ESC10_FOLDERS[0] / "1-100032-A.ogg"
    content = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(content)  # the only real file: the recordings themselves are not ours to touch
    damage(victim)
    refuse(["data", str(folder)], culprit, "fresh copy")


def link_outside() -> bytes:
    """An archive with a symbolic link that points outside."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("top/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def damaged() -> bytes:
    return make_zip({"top/file.txt": b"content"}).replace(b"content", b"corrupt", 1)


OTHER = "' is missing", "set AUDIOCLF_DATA"
# What leaves its folder by its name stays in it, so nothing is found where ESC-10's clips should be.
ARCHIVES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "path upwards": (lambda: make_zip({"top/../../evil.txt": b"x"}), *OTHER),
    "path upwards after good ones": (
        lambda: make_zip({"top/good.txt": b"x", "top/a/../../../evil.txt": b"x"}),
        *OTHER,
    ),
    "absolute path": (lambda: make_zip({"/etc/evil.txt": b"x"}), *OTHER),
    "backslashes": (lambda: make_zip({"top\\..\\..\\evil.txt": b"x"}), *OTHER),
    "drive letter": (lambda: make_zip({"top/C:/evil.txt": b"x"}), *OTHER),
    "link": (link_outside, *OTHER),
    "two folders": (lambda: make_zip({"one/a.txt": b"x", "two/b.txt": b"x"}), *OTHER),
    "web page": (lambda: b"<html>Too many requests</html>", "no whole zip archive", "try again later"),
    "nothing": (lambda: b"", "no whole zip archive", "try again later"),
    "damaged": (damaged, "no whole zip archive", "try again later"),
    "another data set": (lambda: make_zip({"top/readme.txt": b"x"}), *OTHER),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives(
    refuse: Refusal, place: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Server], case: str
) -> None:
    content, culprit, remedy = ARCHIVES[case]
    monkeypatch.setattr(esc, "ESC10_URL", serve(content()).url)
    refuse(["data", "esc10"], culprit, remedy, after_progress=True)


# --- run folders ---------------------------------------------------------------------------------------------------

SOUNDS = KnownDataset("sounds-01234567", "0123456789abcdef", (1, 2, 3), ("high", "low"))
RUN_PLAN = "dataset: ./sounds\nepochs: 2\n" + ONE


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders of two fits."""
    store = RunStore(tmp_path_factory.mktemp("finished") / "runs")
    for config in Experiment(model="cnn", epochs=2).fits(SOUNDS):
        write_run(store, config, n_windows=2, silent_windows=1)
    return store.runs_dir


def change_config(**values: Any) -> Change:
    def change(run: Path) -> None:
        config = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps(config | values))

    return change


def change_predictions(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Change:
    path = "predictions.parquet"
    return lambda run: change(pd.read_parquet(run / path)).to_parquet(run / path)


def become_a_file(run: Path) -> None:
    shutil.rmtree(run)
    run.write_text("mine")


def swap_with_the_other(run: Path) -> None:
    (other,) = [path for path in run.parent.iterdir() if path != run]
    run.rename(run.with_name("x"))
    other.rename(run)
    run.with_name("x").rename(other)


def remove(name: str) -> Change:
    return lambda run: (run / name).unlink()


AGAIN, MOVE = "train the fit again", "move it out of the runs"
CONFIG = "config.json is damaged"
RUN_FAULTS: dict[str, tuple[Change, str, str]] = {
    "newer version": (
        change_config(schema_version=SCHEMA_VERSION + 1, tomorrow=1),
        f"was written by a newer audioclf (schema {SCHEMA_VERSION + 1})",
        "update this one",
    ),
    "fingerprint of another data set": (change_config(fingerprint="f" * 16), "fingerprint ffffffffffffffff", MOVE),
    "fit of another data set": (change_config(dataset="esc10"), "data set 'esc10'", MOVE),
    "other seed than its name says": (change_config(seed=7), "seed 7", MOVE),
    "folder of another fit": (swap_with_the_other, "holds another fit than its name says", MOVE),
    "data set that is a path": (change_config(dataset="../../etc"), CONFIG, AGAIN),
    "unknown setting": (change_config(tomorrow=1), "unknown setting 'tomorrow'", AGAIN),
    "folds that overlap": (change_config(val_fold=1), "not apart", AGAIN),
    "configuration of 0 bytes": (write("config.json", b""), CONFIG, AGAIN),
    "configuration cut off": (write("config.json", b'{"model": "cnn"'), CONFIG, AGAIN),
    "configuration that is a list": (write("config.json", b"[1, 2]"), CONFIG, AGAIN),
    "configuration that is no text": (write("config.json", b"\xff\xfe\x00"), CONFIG, AGAIN),
    "configuration nested without end": (write("config.json", DEEP.encode()), CONFIG, AGAIN),
    "configuration with a number without end": (write("config.json", f'{{"seed": {HUGE}}}'.encode()), CONFIG, AGAIN),
    "configuration that links to itself": (link_to_itself("config.json"), CONFIG, AGAIN),
    "file in its place": (become_a_file, "is a file in the place of a run folder", "move it away"),
    "metrics missing": (remove("metrics.json"), "metrics.json is missing", AGAIN),
    "metrics cut off": (write("metrics.json", b'{"scores": '), "metrics.json is damaged", AGAIN),
    "metrics without scores": (write("metrics.json", b"{}"), "metrics.json is damaged (no scores)", AGAIN),
    "history missing": (remove("history.csv"), "history.csv is missing", AGAIN),
    "history of 0 bytes": (write("history.csv", b""), "history.csv is damaged", AGAIN),
    "predictions missing": (remove("predictions.parquet"), "predictions.parquet is missing", AGAIN),
    "predictions cut off": (write("predictions.parquet", b"PAR1"), "predictions.parquet is damaged", AGAIN),
    "predictions that are no table": (write("predictions.parquet", b"\x80\x04N."), "predictions.parquet is", AGAIN),
    "predictions of other classes": (
        change_predictions(lambda rows: rows.drop(columns="p_1")),
        "predictions.parquet is damaged (no column 'p_1')",
        AGAIN,
    ),
    "environment missing": (remove("environment.json"), "environment.json is missing", AGAIN),
}


def sign(runs_dir: Path) -> None:
    """Write all checksums anew, as a program does that changes run folders and knows of the sums."""
    for sums in runs_dir.rglob(SUMS):
        write_sums(sums.parent, [name for name in ARTEFACTS if (sums.parent / name).is_file()])


@pytest.mark.parametrize("case", RUN_FAULTS)
def test_run_folders(refuse: Refusal, place: Path, finished: Path, case: str) -> None:
    damage, culprit, remedy = RUN_FAULTS[case]
    shutil.copytree(finished, place / "runs")
    (place / "mine.yaml").write_text(RUN_PLAN)
    damage(next(path for path in (place / "runs" / SOUNDS.name).iterdir() if "-val2-" in path.name))
    sign(place / "runs")
    refuse(["report", "--plan", "mine.yaml", "--runs-dir", "runs"], culprit, remedy)


def test_run_folders_of_checks(refuse: Refusal, place: Path, finished: Path) -> None:
    shutil.copytree(finished, place / "runs")
    (place / "mine.yaml").write_text(
        "dataset: ./sounds\nepochs: 2\ntest_fold: 3\n"
        "experiments: [{model: cnn, protocol: split}, {model: cnn, protocol: kfold, test_fold: 1}]"
    )
    run = next(path for path in (place / "runs" / SOUNDS.name).iterdir() if "-val2-" in path.name)
    write("predictions.parquet", b"PAR1")(run)
    refuse(["report", "--plan", "mine.yaml", "--runs-dir", "runs"], "predictions.parquet is damaged", AGAIN)


@pytest.mark.parametrize("case", ["fingerprint of another data set", "newer version", "file in its place"])
@pytest.mark.parametrize("command", [["suite", "--dry-run"], ["suite"], ["run", "cnn-split", "--epochs", "2"]])
def test_run_folders_of_what_would_be_trained(refuse: Refusal, place: Path, case: str, command: list[str]) -> None:
    damage, culprit, remedy = RUN_FAULTS[case]
    (config,) = Experiment(model="cnn", protocol="split", epochs=2).fits(load_dataset(make_folder(place / "sounds")))
    run = write_run(RunStore(place / "runs"), config, n_windows=1, silent_windows=0).path
    damage(run)
    sign(place / "runs")
    if command[0] == "suite":
        (place / "mine.yaml").write_text(RUN_PLAN)
        command = [*command, "--plan", "mine.yaml"]
    refuse([*command, "--dataset", "sounds", "--runs-dir", "runs"], culprit, remedy)


def test_folders_and_files_of_strangers_are_left_alone(
    place: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load_dataset(make_folder(place / "sounds"))
    (config,) = Experiment(model="cnn", protocol="split", epochs=2).fits(dataset)
    run = write_run(RunStore(place / "runs"), config, n_windows=1, silent_windows=0).path
    (run / "Thumbs.db").write_bytes(b"\0")
    (run / "notes").mkdir()
    (run.parent / "notes.txt").write_text("mine")
    (run.parent / "drafts").mkdir()
    (place / "mine.yaml").write_text(RUN_PLAN)
    before = snapshot(place)
    assert call(monkeypatch, "suite", "--dry-run", "--plan", "mine.yaml", "--runs-dir", "runs") == 0
    assert "1/1" in capsys.readouterr().out
    assert snapshot(place) == before


# --- by way of notebooks, and as processes of their own --------------------------------------------------------------

NOTEBOOK_FAULTS: dict[str, tuple[list[str], str, str]] = {
    "fold that is not there": (
        ["10_cnn_kfold", "-p", "val_folds=[7]", "-p", "dataset=sounds", "-o", "out/mine.ipynb"],
        "fold 7",
        "[1, 2, 3]",
    ),
    "0-byte file": (["01_dataset", "-p", "dataset=broken"], "high-2.wav cannot be read as sound", "give a WAV"),
}


@pytest.mark.parametrize("case", NOTEBOOK_FAULTS)
def test_notebook_parameters(refuse: Refusal, place: Path, case: str) -> None:
    arguments, culprit, remedy = NOTEBOOK_FAULTS[case]
    make_folder(place / "sounds")
    write("high-2.wav", b"")(make_folder(place / "broken"))
    refuse(["run", *arguments, "--runs-dir", "runs"] if case != "0-byte file" else ["run", *arguments], culprit, remedy)


def test_a_notebook_shows_the_sentence_and_no_line_of_code(place: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(
            notebook_path("11_cnn_split"), place / "out.ipynb", {"epochs": "many"}, kernel_name="python3"
        )
    assert error.value.ename == "InputError"
    assert error.value.traceback == [f"InputError: {error.value.evalue}"]
    assert "epochs = 'many'" in error.value.evalue


@pytest.mark.parametrize("module", [True, False])
def test_as_a_process_of_its_own(place: Path, module: bool) -> None:
    program = (
        [sys.executable, "-m", "audioclf_lib.cli"] if module else [str(Path(sys.executable).with_name("audioclf"))]
    )
    before = snapshot(place)
    done = subprocess.run([*program, "data", "no/such\nfolder"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"audioclf: '{place}/no/such\\nfolder' is neither demo, nor esc10, nor a folder with sounds or a labels.csv; "
        "check the name or the path\n"
    )
    assert snapshot(place) == before


def test_there_are_enough_cases() -> None:
    tables = (PARAMETERS, PLANS, PLACES, FOLDER_FAULTS, ESC50_FAULTS, ESC10_FAULTS, ARCHIVES, RUN_FAULTS)
    assert sum(map(len, tables)) >= 60


# --- odd, but good -------------------------------------------------------------------------------------------------


def rewrite(name: str, rate: int = 16_000, channels: int = 1, seconds: float = 1.0, **options: Any) -> Change:
    """Write one clip anew, in another form."""

    def write_clip(folder: Path) -> None:
        samples = np.stack([tone(seconds, rate)] * channels, axis=1)
        (folder / "high-2.wav").unlink()
        sf.write(folder / name, samples, rate, **options)
        table(folder, lambda clips: clips.replace("high-2.wav", name))

    return write_clip


def one_sample(folder: Path) -> None:
    for path in folder.glob("*.wav"):
        sf.write(path, np.array([0.5], dtype=np.float32), 16_000)


def retype(change: Callable[[str], str], encoding: str = "utf-8") -> Change:
    """Write the table anew with other characters."""

    def write_table(folder: Path) -> None:
        text = (folder / "labels.csv").read_text(encoding="utf-8")
        (folder / "labels.csv").write_bytes(change(text).encode(encoding))

    return write_table


def rename_folder(name: str) -> Change:
    return lambda folder: folder.rename(folder.with_name(name))


def rename_labels(low: str, high: str) -> Change:
    return lambda folder: table(folder, lambda clips: clips.replace({"low": low, "high": high}))


def quote_everything(folder: Path) -> None:
    rows = list(csv.reader((folder / "labels.csv").open()))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


def with_directories(folder: Path) -> None:
    for path in list(folder.glob("*.wav")):
        (folder / path.stem[:-2]).mkdir(exist_ok=True)
        path.rename(folder / path.stem[:-2] / path.name)
    table(folder, lambda clips: clips.assign(filename=clips["label"] + "\\" + clips["filename"]))


def linked(folder: Path) -> None:
    real = (folder / "high-2.wav").rename(folder.parent / "elsewhere.wav")
    (folder / "high-2.wav").symlink_to(real)


# What is done to a good folder, and the folder's name then.
ODD: dict[str, tuple[Change, str]] = {
    "192 kHz": (rewrite("high-2.wav", 192_000), "sounds"),
    "a rate that no device has": (rewrite("high-2.wav", 44_099), "sounds"),
    "8 channels": (rewrite("high-2.wav", channels=8), "sounds"),
    "8 bits": (rewrite("high-2.wav", subtype="PCM_U8"), "sounds"),
    "64-bit numbers": (rewrite("high-2.wav", subtype="DOUBLE"), "sounds"),
    "a FLAC file called WAV": (rewrite("high-2.wav", format="FLAC"), "sounds"),
    "capital ending": (rewrite("HIGH.WAV"), "sounds"),
    "clips of 1 sample": (one_sample, "sounds"),
    "a clip of 70 s": (rewrite("high-2.wav", 8_000, seconds=70), "sounds"),
    "file names with spaces": (rewrite("a high sound (2).wav"), "sounds"),
    "file names with letters of the world": (rewrite("Hühner 鶏 كلب 🐓.wav"), "sounds"),
    "file names with quotes and commas": (rewrite('it\'s a "high", high sound.wav'), "sounds"),
    "file names that begin with a dash": (rewrite("-rf.wav"), "sounds"),
    "a folder with spaces": (rename_folder("My Sounds"), "My Sounds"),
    "a folder with letters of the world": (rename_folder("Geräusche 音"), "Geräusche 音"),
    "a folder without a Latin letter": (rename_folder("音"), "音"),
    "a folder called like a data set": (rename_folder("esc10"), "./esc10"),
    "labels with letters of the world": (rename_labels("Möwe", "שלום"), "sounds"),
    "labels with markup": (rename_labels("$x$ & <b>#*_`", "\\input{x}"), "sounds"),
    "labels of digits": (rename_labels("0", "1"), "sounds"),
    "labels called NA": (rename_labels("NA", "null"), "sounds"),
    "a byte order mark": (retype(str, "utf-8-sig"), "sounds"),
    "lines that end as on Windows": (retype(lambda text: text.replace("\n", "\r\n")), "sounds"),
    "spaces and blank lines": (retype(lambda text: text.replace(",", " , ").replace("\n", "\n\n,,\n")), "sounds"),
    "quotes around everything": (quote_everything, "sounds"),
    "further columns": (
        lambda folder: table(folder, lambda clips: clips.assign(note="a, b", fold=clips["fold"])),
        "sounds",
    ),
    "folders inside, named as on Windows": (with_directories, "sounds"),
    "folds that do not follow each other": (retype(lambda text: text.replace(",3", ",999999")), "sounds"),
    "a clip that is linked": (linked, "sounds"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_odd_but_good_works(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, name = ODD[case]
    change(make_folder(place / "sounds"))
    assert call(monkeypatch, "data", name) == 0, capsys.readouterr().err
    shown = capsys.readouterr()
    assert shown.err == ""
    assert re.search(r"clips\s+6 of ", shown.out)
    assert re.search(r"classes\s+2: ", shown.out)


def test_one_clip_of_many_may_be_a_single_sample(place: Path) -> None:
    folder = make_folder(place / "sounds")
    sf.write(folder / "high-2.wav", np.array([0.5], dtype=np.float32), 16_000, subtype="FLOAT")
    dataset = load_dataset(folder)
    assert dataset.waveforms[3].tolist() == [0.5] + [0.0] * 15_999
