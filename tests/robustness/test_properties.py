"""What holds for every input, not for chosen ones: windowing, folds, run folders, statistics, and what users write.

Examples follow from the tests' names alone, so that every run tries the same ones.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from audio_files import make_folder
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from synthetic import DEMO_CLASSES, SPLITS

from audioclf_lib._support.errors import InputError, one_line, quote, refuse_control_characters
from audioclf_lib.cli import _parse_parameters
from audioclf_lib.config import Experiment, FitConfig, KnownDataset, Recipe, make_recipe
from audioclf_lib.data import load_dataset
from audioclf_lib.data.windowing import (
    clip_probabilities,
    count_windows,
    cut_windows,
    find_silent_windows,
)
from audioclf_lib.metrics.scores import Scores, evaluate
from audioclf_lib.runs.checksums import write_sums
from audioclf_lib.runs.store import RunStore, load_run
from audioclf_lib.suite.plan import Plan, load_plan

QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
FUZZ = settings(QUICK, max_examples=75)


# --- windowing -----------------------------------------------------------------------------------------------------

clip_shapes = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 9), st.integers(0, 8))


@QUICK
@given(clip_shapes)
def test_windows_that_are_laid_one_over_another_give_the_clip_back(shape: tuple[int, int, int, int]) -> None:
    n_clips, size, hop, rest = shape
    n_windows = 3
    clips = torch.arange(n_clips * (size + 2 * hop + rest), dtype=torch.float32).reshape(n_clips, -1)
    assume(rest < hop)
    windows = cut_windows(clips, size, hop)
    assert windows.shape == (n_clips, n_windows, 1, size)
    assert count_windows(clips.shape[1], size, hop) == n_windows
    rebuilt = torch.full_like(clips, float("nan"))
    for k in range(n_windows):
        rebuilt[:, k * hop : k * hop + size] = windows[:, k, 0]
    covered = ~rebuilt.isnan()
    assert torch.equal(rebuilt[covered], clips[covered])
    uncovered = max(0, hop - size) * (n_windows - 1) + rest
    assert int((~covered).sum()) == n_clips * uncovered, "all but the gaps and what is left over at the end"
    for k in range(n_windows - 1):
        shared = max(0, size - hop)
        assert torch.equal(windows[:, k, 0, size - shared :], windows[:, k + 1, 0, :shared])


@QUICK
@given(n_samples=st.integers(16_000, 200_000), more=st.integers(0, 100_000))
def test_a_longer_clip_never_has_fewer_windows_and_the_last_one_ends_inside(n_samples: int, more: int) -> None:
    n_windows = count_windows(n_samples)
    assert (n_windows - 1) * 8_000 + 16_000 <= n_samples < n_windows * 8_000 + 16_000
    assert count_windows(n_samples + more) >= n_windows


@st.composite
def votes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n_clips, n_windows, n_classes), and which windows are silent."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(2, 5)))
    weights = draw(hnp.arrays(np.float64, shape, elements=st.floats(1e-3, 1)))
    silent = draw(hnp.arrays(np.bool_, shape[:2]))
    return weights / weights.sum(axis=2, keepdims=True), silent


@QUICK
@given(votes(), st.randoms(use_true_random=False))
def test_clip_probabilities(votes: tuple[np.ndarray, np.ndarray], random: Any) -> None:
    """They sum to one, lie between those of the windows, and silent windows can say what they like."""
    windows, silent = votes
    clips = clip_probabilities(windows, silent).numpy()
    np.testing.assert_allclose(clips.sum(axis=1), 1)
    assert (clips >= windows.min(axis=1) - 1e-12).all()
    assert (clips <= windows.max(axis=1) + 1e-12).all()
    heard = ~silent.all(axis=1)
    other = np.where(silent[..., None], 1 / windows.shape[2], windows)
    np.testing.assert_allclose(clip_probabilities(other, silent).numpy()[heard], clips[heard])
    order = random.sample(range(windows.shape[1]), windows.shape[1])
    np.testing.assert_allclose(clip_probabilities(windows[:, order], silent[:, order]).numpy(), clips)


@QUICK
@given(
    hnp.arrays(np.float32, (3, 24_000), elements=st.just(0.0)), st.integers(0, 23_999), st.floats(0.125, 1, width=32)
)
def test_a_sound_wakes_exactly_the_windows_that_hold_it(clips: np.ndarray, place: int, peak: float) -> None:
    clips[1, place] = -peak
    silent = find_silent_windows(clips).numpy()
    assert silent[[0, 2]].all()
    assert silent[1].tolist() == [not 8_000 * k <= place < 8_000 * k + 16_000 for k in range(2)]


# --- folds ---------------------------------------------------------------------------------------------------------

layouts = st.sets(st.integers(0, 999_999), min_size=3, max_size=8).flatmap(
    lambda folds: st.tuples(st.just(sorted(folds)), st.sampled_from(sorted(folds)))
)


def known(folds: list[int], fingerprint: str = "0" * 16) -> KnownDataset:
    return KnownDataset("sounds", fingerprint, tuple(folds), DEMO_CLASSES[:3])


@QUICK
@given(layouts, st.sampled_from(["cnn", "transformer"]))
def test_every_layout_of_folds_is_split_without_overlap_and_without_rest(
    layout: tuple[list[int], int], model: Any
) -> None:
    folds, test_fold = layout
    kfold = Experiment(model=model, test_fold=test_fold).fits(known(folds))
    for fit in kfold:
        parts = [set(fit.train_folds), {fit.val_fold}, {fit.test_fold}]
        assert set.union(*parts) == set(folds)
        assert sum(map(len, parts)) == len(folds), "the parts are disjoint"
        assert fit.test_fold == test_fold
    assert sorted(fit.val_fold for fit in kfold) == [fold for fold in folds if fold != test_fold]
    (split,) = Experiment(model=model, test_fold=test_fold, protocol="split").fits(known(folds))
    assert split in kfold
    assert split.val_fold == (folds * 2)[folds.index(test_fold) + 1], "the fold that follows the test fold"
    assert split.fit_id in {fit.fit_id for fit in kfold}


@QUICK
@given(layouts, st.data())
def test_chosen_validation_folds_are_those_of_the_fits(layout: tuple[list[int], int], data: st.DataObject) -> None:
    folds, test_fold = layout
    others = [fold for fold in folds if fold != test_fold]
    chosen = data.draw(st.lists(st.sampled_from(others), min_size=1, unique=True))
    fits = Experiment(model="cnn", test_fold=test_fold, val_folds=chosen).fits(known(folds))
    assert [fit.val_fold for fit in fits] == chosen
    everything = Experiment(model="cnn", test_fold=test_fold).fits(known(folds))
    assert {fit.fit_id for fit in fits} <= {fit.fit_id for fit in everything}


# --- run folders ---------------------------------------------------------------------------------------------------

numbers = st.floats(allow_nan=False, allow_infinity=False)
changes = st.fixed_dictionaries(
    {},
    optional={
        "dropout": st.floats(0, 0.9),
        "learning_rate": st.floats(1e-9, 1),
        "batch_size": st.integers(1, 4096),
        "drop_silent": st.booleans(),
        "activation": st.sampled_from(["none", "relu"]),
    },
)
configurations = st.builds(
    lambda **values: Experiment(**values).fits(known([1, 2, 3, 4]))[0],
    model=st.sampled_from(["cnn", "transformer"]),
    protocol=st.sampled_from(["kfold", "split"]),
    test_fold=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    epochs=st.integers(1, 100_000),
    recipe=st.sampled_from(["tuned", "as-written"]),
    recipe_changes=changes,
)


@QUICK
@given(st.lists(configurations, min_size=2, max_size=6))
def test_fit_ids_are_stable_and_differ_where_configurations_do(configs: list[FitConfig]) -> None:
    for config in configs:
        again = FitConfig(**json.loads(json.dumps(config.model_dump(mode="json"))))
        assert again == config
        assert again.fit_id == config.fit_id
        assert Path(config.fit_id).name == config.fit_id, "fit to name a folder"
        assert len(config.fit_id) < 120
    for one in configs:
        for other in configs:
            assert (one == other) == (one.fit_id == other.fit_id)


def frame(n: int) -> st.SearchStrategy[pd.DataFrame]:
    """Predictions of three classes: any numbers, any clip names."""
    rows = {
        "split": st.sampled_from(SPLITS),
        "clip_id": st.text(max_size=8),
        "source": st.text(max_size=8),
        "fold": st.integers(0, 2**40),
        "window_index": st.integers(0, 100),
        "silent": st.booleans(),
        "y_true": st.integers(0, 2),
        **{f"p_{label}": st.floats(width=32, allow_nan=False) for label in range(3)},
    }
    columns = {name: st.lists(values, min_size=n, max_size=n) for name, values in rows.items()}
    return st.fixed_dictionaries(columns).map(lambda values: pd.DataFrame(values))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=8),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=6,
)


@settings(QUICK, max_examples=20)
@given(
    config=configurations,
    predictions=st.integers(1, 4).flatmap(frame),
    losses=st.lists(numbers, min_size=1, max_size=4),
    environment=st.dictionaries(st.text(max_size=8), json_values, max_size=3),
    weights=hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4)),
)
def test_what_is_saved_is_what_is_loaded(
    tmp_path_factory: pytest.TempPathFactory,
    config: FitConfig,
    predictions: pd.DataFrame,
    losses: list[float],
    environment: dict[str, Any],
    weights: np.ndarray,
) -> None:
    store = RunStore(tmp_path_factory.mktemp("runs"))
    history = pd.DataFrame({"epoch": range(1, len(losses) + 1), "train_loss": losses})
    store.save(
        config,
        history=history,
        predictions=predictions,
        metrics={"scores": {}, "chosen": environment},
        weights={"w": torch.from_numpy(weights)},
        environment=environment,
    )
    run = RunStore(store.runs_dir).load(config)
    assert run.config == config
    assert [found.config for found in store.find(dataset="sounds")] == [config]
    pd.testing.assert_frame_equal(run.history, history, check_exact=True)
    pd.testing.assert_frame_equal(run.predictions, predictions, check_exact=True, check_dtype=False)
    assert run.environment == run.metrics["chosen"] == environment
    np.testing.assert_array_equal(run.weights()["w"].numpy(), weights)


# --- statistics ----------------------------------------------------------------------------------------------------


@st.composite
def predictions(draw: st.DrawFn) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Predictions of one split: some clips with some windows each, and the classes' names."""
    n_classes, n_clips, n_windows = draw(st.tuples(st.integers(2, 5), st.integers(2, 8), st.integers(1, 4)))
    labels = draw(st.lists(st.integers(0, n_classes - 1), min_size=n_clips, max_size=n_clips))
    shape = (n_clips * n_windows, n_classes)
    weights = draw(hnp.arrays(np.float64, shape, elements=st.integers(1, 50).map(float)))
    rows = pd.DataFrame(
        {
            "split": "test",
            "clip_id": np.repeat([f"clip{n}" for n in range(n_clips)], n_windows),
            "window_index": np.tile(np.arange(n_windows), n_clips),
            "silent": draw(hnp.arrays(np.bool_, shape[0])),
            "y_true": np.repeat(labels, n_windows),
        }
    )
    shares = weights / weights.sum(axis=1, keepdims=True)
    return rows.join(pd.DataFrame(shares, columns=[f"p_{c}" for c in range(n_classes)])), DEMO_CLASSES[:n_classes]


@QUICK
@given(predictions(), st.sampled_from(["window", "clip"]), st.integers(0, 1_000))
def test_scores(drawn: tuple[pd.DataFrame, tuple[str, ...]], level: Any, seed: int) -> None:
    """Rows in another order change nothing; accuracy is trace over sum; macro means are means over classes."""
    rows, names = drawn
    scores = evaluate(rows, names, level=level)
    shuffled = evaluate(rows.sample(frac=1, random_state=seed), names, level=level)
    pd.testing.assert_frame_equal(*(pd.json_normalize(each.summary()) for each in (shuffled, scores)))
    np.testing.assert_array_equal(shuffled.confusion, scores.confusion)
    assert scores.accuracy == np.trace(scores.confusion) / scores.confusion.sum()
    assert scores.confusion.sum() == scores.n == (len(rows) if level == "window" else rows["clip_id"].nunique())
    np.testing.assert_array_equal(scores.confusion.sum(axis=1), scores.per_class["support"])
    assert scores.macro_f1 == pytest.approx(scores.per_class["f1"].mean())
    areas = scores.per_class["auc"].dropna()
    if len(areas):
        assert scores.auc["macro"] == pytest.approx(areas.mean())
        assert all(0 <= area <= 1 for area in scores.auc.values() if not np.isnan(area))


@QUICK
@given(predictions(), st.integers(0, 1_000))
def test_classes_in_another_order_have_the_same_scores(drawn: tuple[pd.DataFrame, tuple[str, ...]], seed: int) -> None:
    rows, names = drawn
    order = np.random.default_rng(seed).permutation(len(names))
    columns = [f"p_{label}" for label in range(len(names))]
    moved = rows.assign(y_true=np.argsort(order)[rows["y_true"]])
    moved[columns] = rows[columns].to_numpy()[:, order]
    assume(all(len(set(row)) == len(row) for row in rows[columns].to_numpy()))  # ties go to the first class
    one, other = evaluate(rows, names), evaluate(moved, [names[label] for label in order])
    assert other.accuracy == one.accuracy
    pd.testing.assert_frame_equal(other.per_class.loc[list(names)], one.per_class)
    assert other.auc["micro"] == pytest.approx(one.auc["micro"], nan_ok=True)


@QUICK
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(2, 5))
def test_a_perfect_ranking_has_full_marks(labels: list[int], n_classes: int) -> None:
    y_true = np.array([label % n_classes for label in labels])
    scores = Scores("clip", DEMO_CLASSES[:n_classes], y_true, np.eye(n_classes)[y_true])
    assert scores.accuracy == 1
    assert all(area == 1 for area in scores.auc.values() if not np.isnan(area))


# --- whatever users write ends in a value or in an InputError ------------------------------------------------------

texts = st.text(max_size=30)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=5)
anything = st.recursive(
    scalars,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(texts | st.integers(), values, max_size=3),
    max_leaves=8,
)


def value_or_input_error(make: Callable[[], object]) -> object:
    """The value, or None after an InputError of one sentence; any other exception fails the test."""
    try:
        return make()
    except InputError as error:
        sentence = one_line(str(error))
        assert sentence.isprintable()
        assert len(sentence) < 5_000
        return None


def settings_of(model: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Settings that the model knows, with any value, and now and then one that it does not know."""
    named = st.dictionaries(st.sampled_from([*model.model_fields, "self", "cls", "x"]), anything, max_size=4)
    return named | st.dictionaries(texts, anything, max_size=3)


@FUZZ
@given(settings_of(Experiment), st.sampled_from(["cnn", "transformer"]))
@example({"test_fold": 10**5_000}, "cnn")
@example({"recipe_changes": "[" * 100_000}, "cnn")
@example({"recipe_changes": '{"batch_size": ' + "9" * 5_000 + "}"}, "cnn")
@example({"runs_dir": "a\0b"}, "cnn")
@example({"runs_dir": "~nobody-of-this-name"}, "cnn")
def test_experiments(values: dict[str, Any], model: str) -> None:
    made = value_or_input_error(lambda: Experiment(**({"model": model} | values)))
    if isinstance(made, Experiment):
        value_or_input_error(lambda: [fit.fit_id for fit in made.fits(known([1, 2, 3]))])


@FUZZ
@given(settings_of(Recipe), st.sampled_from(["tuned", "as-written", "x"]))
def test_recipes(values: dict[str, Any], name: str) -> None:
    made = value_or_input_error(lambda: make_recipe(name, "cnn", values))
    if isinstance(made, Recipe):
        assert not any(
            isinstance(value, bool) for name, value in made if Recipe.model_fields[name].annotation is not bool
        )


@FUZZ
@given(settings_of(Plan))
@example({"experiments": [{0: "cnn"}]})
def test_plans(values: dict[str, Any]) -> None:
    experiments = [{"model": "cnn", "protocol": "split"}]
    value_or_input_error(lambda: Plan(**({"name": "mine", "experiments": experiments} | values)))


plan_lines = st.lists(
    st.sampled_from(["experiments:", "- {model: cnn, protocol: split}", "epochs: 3", "seeds: [1, 1]", "name: &a", "*a"])
    | st.builds(lambda key, value: f"{key}: {value}", st.sampled_from(list(Plan.model_fields)), texts)
    | texts,
    max_size=6,
).map("\n".join)


@FUZZ
@given(plan_lines.map(str.encode) | st.binary(max_size=60) | anything.map(lambda value: yaml.dump(value).encode()))
def test_plan_files(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    value_or_input_error(lambda: load_plan(path))


@FUZZ
@given(st.lists(texts, max_size=3) | st.lists(json_values.map(lambda value: f"x={json.dumps(value)}"), max_size=3))
def test_command_line_values(given_texts: list[str]) -> None:
    value_or_input_error(lambda: _parse_parameters(given_texts))
    for text in given_texts:
        value_or_input_error(lambda text=text: load_plan("demo").changed(seeds=text.split(","), recipe_changes=text))


entries = st.sampled_from(
    ["filename", "label", "fold", "source", "low-1.wav", "high-2.wav", "low", "high", "1", "2", "3", ""]
)
csv_rows = st.lists(st.lists(entries | texts, max_size=5), max_size=7)


def as_csv(rows: list[list[str]], newline: str) -> bytes:
    lines = []
    for row in rows:
        quoted = [f'"{entry.replace(chr(34), chr(34) * 2)}"' if set(entry) & set(',"\r\n') else entry for entry in row]
        lines.append(",".join(quoted))
    return newline.join(lines).encode()


csv_files = st.builds(as_csv, csv_rows, st.sampled_from(["\n", "\r\n", "\r"]))
listings = csv_files.map(lambda content: b"filename,label,fold\n" + content)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("fuzz") / "sounds")


@FUZZ
@given(listings | csv_files | st.binary(max_size=80) | texts.map(str.encode))
@example(b"filename,label,fold\n\0,a,1\n")
@example(b"filename,label,fold\nlow-1.wav,a,1\n,,\n")
def test_label_files(sounds: Path, content: bytes) -> None:
    (sounds / "labels.csv").write_bytes(content)
    value_or_input_error(lambda: load_dataset(sounds, data_dir=sounds.parent))


@FUZZ
@given(
    st.lists(st.tuples(st.sampled_from(["high", "low"]), st.sampled_from("123"), st.sampled_from("123")), max_size=8)
)
def test_label_files_of_files_that_are_there(sounds: Path, rows: list[tuple[str, str, str]]) -> None:
    with (sounds / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "label", "fold"), *((f"{a}-{b}.wav", a, c) for a, b, c in rows)])
    dataset = value_or_input_error(lambda: load_dataset(sounds, data_dir=sounds.parent))
    cells = {(label, fold) for label, _, fold in rows}
    names = {(label, number) for label, number, _ in rows}
    is_good = len(cells) == 2 * len({fold for _, fold in cells}) and len(names) == len(rows)
    assert (dataset is not None) == (is_good and len({fold for _, fold in cells}) == 3)


@FUZZ
@given(texts | st.binary(max_size=30).map(lambda content: content.decode(errors="surrogateescape")))
@example(":4s")
@example("~")
@example("x" * 5_000)
@example("/x" * 3_000)
@example("\0")
def test_names_of_data_sets(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    empty = tmp_path_factory.getbasetemp() / "empty"
    empty.mkdir(exist_ok=True)
    assume("demo" not in name)  # would be generated
    assume("esc10" not in name)  # would be downloaded
    with contextlib.chdir(empty):
        value_or_input_error(lambda: load_dataset(name, data_dir=empty))
    assert list(empty.iterdir()) == []


@FUZZ
@given(st.binary(max_size=40) | anything.map(lambda value: json.dumps(value, default=str).encode()))
def test_json_of_run_folders(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(content)
    write_sums(folder, ["config.json"])
    value_or_input_error(lambda: load_run(folder))


@FUZZ
@given(settings_of(FitConfig))
@example({"recipe_settings": {0: None}})
def test_configurations_of_run_folders(values: dict[str, Any]) -> None:
    good = Experiment(model="cnn").fits(known([1, 2, 3]))[0].model_dump()
    value_or_input_error(lambda: FitConfig(**(good | values)))


@FUZZ
@given(anything | st.text())
@example(10**5_000)
@example("\N{RIGHT-TO-LEFT OVERRIDE}\x1b[2J")
def test_what_is_quoted_is_short_and_printable(value: object) -> None:
    assert len(quote(value)) < 2_000
    line = one_line(f"x {value!s}" if not isinstance(value, int) else quote(value))
    assert line.isprintable()
    assert one_line(line) == line
    if isinstance(value, str) and value_or_input_error(lambda: refuse_control_characters("it", value) or True):
        assert not any(ord(character) < 32 for character in value)
