"""Readings say what the numbers say: every number in a sentence is one of the data, and no sentence contradicts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from shown import plain_text
from synthetic import DEMO, write_run

from audioclf_lib.config import Experiment
from audioclf_lib.metrics.scores import Level, Scores, score
from audioclf_lib.report import observations
from audioclf_lib.report.pandoc import read_markdown
from audioclf_lib.report.results import ExperimentResult
from audioclf_lib.runs.store import RunStore

HOSTILE = ["50 % of $x_1$", r"\frac{a}{b}", "*bold* [@fig:no]", "a|b `c` <b>", "# heading"]


def letters(n_classes: int) -> list[str]:
    """Names without anything to escape: ``aa``, ``ab``, ..."""
    return [chr(97 + label // 26) + chr(97 + label % 26) for label in range(n_classes)]


def scores_of(confusion: Sequence[Sequence[int]], names: Sequence[str] = (), level: Level = "window") -> Scores:
    """Scores with a given confusion matrix; what is answered gets the probability 0.9."""
    matrix = np.asarray(confusion)
    n_classes = len(matrix)
    pairs = np.repeat(np.argwhere(matrix >= 0), matrix.ravel(), axis=0)
    probabilities = np.full((len(pairs), n_classes), 0.1 / (n_classes - 1))
    probabilities[np.arange(len(pairs)), pairs[:, 1]] = 0.9
    return score(pairs[:, 0], probabilities, list(names) or letters(n_classes), level=level)


@st.composite
def confusions(draw: st.DrawFn) -> np.ndarray:
    """Every class has a window or more."""
    n_classes = draw(st.sampled_from([2, 3, 10, 13, 50]))
    most = draw(st.sampled_from([1, 9]))  # with few values there are many ties
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = random.integers(0, most + 1, (n_classes, n_classes)) * (random.random((n_classes, n_classes)) < 0.3)
    matrix[np.arange(n_classes), random.integers(0, n_classes, n_classes)] += 1
    return matrix


ALL_RIGHT = np.diag([4, 4, 4])
ALL_WRONG = [[0, 5, 0], [0, 0, 5], [5, 0, 0]]
ONE_ANSWER = [[0, 6, 0], [0, 6, 0], [0, 6, 0]]
EXTREMES = [ALL_RIGHT, ALL_WRONG, ONE_ANSWER, [[1, 1], [1, 1]], np.diag([2] * 50), [[0, 1], [1, 0]]]


def percentages(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(-?\d+(?:\.\d+)?)\N{NO-BREAK SPACE}%", text)]


# ------------------------------------------------------------------------------------------- scores of the test fold


@settings(deadline=None, max_examples=40)
@given(confusions())
def test_the_accuracy_written_out_is_the_accuracy(matrix: np.ndarray) -> None:
    scores = scores_of(matrix)
    latex = observations.accuracy_latex(scores)
    found = re.fullmatch(
        r"\\mathrm\{accuracy\} = \\frac\{(.*?)\}\{(\d+)\} = \\frac\{(\d+)\}\{(\d+)\} = (\d\.\d{4})", latex
    )
    assert found is not None
    terms, total, right, again, value = found.groups()
    diagonal = np.diag(matrix).tolist()
    assert (int(right), int(total), int(again)) == (sum(diagonal), matrix.sum(), matrix.sum())
    # Exactly: in floating point the distance of a half, as of 0.03125 from 0.0312, comes out a little too large.
    assert abs(Fraction(value) - Fraction(sum(diagonal), int(matrix.sum()))) <= Fraction(5, 10**5)
    head, dots, tail = terms.partition(r" + \cdots + ")
    first, last = [[int(term) for term in part.split(" + ") if term] for part in (head, tail)]
    assert first + last == (diagonal[: len(first)] + diagonal[-len(last) :] if dots else diagonal)
    assert bool(dots) == (len(diagonal) > 12)


def check_confusion(matrix: np.ndarray) -> None:
    scores = scores_of(matrix)
    names, text = list(scores.class_names), observations.read_confusion(scores)
    recall = np.diag(matrix) / matrix.sum(1)
    shown = [(names.index(name), int(a), int(b)) for name, a, b in re.findall(r"\*(\w+)\* \((\d+) of (\d+)", text)]
    for label, right, total in shown:
        assert (right, total) == (matrix[label, label], matrix[label].sum())
    if recall.min() < recall.max():
        assert {recall[label] for label, *_ in shown} >= {recall.min(), recall.max()}
    else:
        assert not ("best" in text and "worst" in text), "none is better or worse than the others"
    wrong = matrix - np.diag(np.diag(matrix))
    confusion = re.search(r"takes \*(\w+)\* for \*(\w+)\* \((\d+|once|twice)", text)
    assert (confusion is not None) == bool(wrong.any())
    if confusion is not None:
        true, predicted, times = confusion.groups()
        count = {"once": 1, "twice": 2}.get(times) or int(times)
        assert wrong[names.index(true), names.index(predicted)] == count == wrong.max()
        assert "1 times" not in text.replace("11 times", "")
    favourite = names.index(re.findall(r"\*(\w+)\*, with", text)[0])
    answered, held = percentages(text)[-2:]
    assert matrix[:, favourite].sum() == matrix.sum(0).max()
    assert answered == pytest.approx(100 * matrix[:, favourite].sum() / matrix.sum(), abs=0.051)
    assert held == pytest.approx(100 * matrix[favourite].sum() / matrix.sum(), abs=0.051)


@settings(deadline=None, max_examples=40)
@given(confusions())
def test_the_reading_of_a_confusion_matrix_says_what_it_holds(matrix: np.ndarray) -> None:
    check_confusion(matrix)


@pytest.mark.parametrize("matrix", EXTREMES, ids=["right", "wrong", "one answer", "coin", "50 right", "swapped"])
def test_the_reading_of_an_extreme_confusion_matrix_does_not_contradict_itself(matrix: Sequence[Sequence[int]]) -> None:
    check_confusion(np.asarray(matrix))


def check_best_and_worst(text: str, values: dict[str, float], digits: int) -> None:
    """Names with a number in brackets: the best and the worst class are among them, with their values."""
    shown = {name: float(value) for name, value in re.findall(rf"\*(\w+)\*[^*(]*\((\d\.\d{{{digits}}})\)", text)}
    for name, value in shown.items():
        assert value == pytest.approx(values[name], abs=0.51 * 10**-digits)
    if min(values.values()) < max(values.values()):
        assert {min(values.values()), max(values.values())} <= {values[name] for name in shown}
    else:
        assert not re.search(r"worst|lowest", text), "all are alike"


@settings(deadline=None, max_examples=40)
@given(confusions())
def test_the_reading_of_f1_names_best_worst_and_lost_classes(matrix: np.ndarray) -> None:
    scores = scores_of(matrix)
    text = observations.read_f1(scores)
    f1 = {name: float(value) for name, value in scores.per_class["f1"].items()}
    check_best_and_worst(text.split("ever found")[0], f1, digits=2)
    assert f"{np.mean(list(f1.values())):.3f}" in text
    lost = [name for name, value in f1.items() if value == 0]
    assert re.findall(r"\*(\w+)\*", text.partition("ever found")[2]) == lost or not lost


@settings(deadline=None, max_examples=40)
@given(confusions())
def test_the_reading_of_roc_curves_names_best_and_worst_class(matrix: np.ndarray) -> None:
    scores = scores_of(matrix)
    text = observations.read_roc(scores)
    check_best_and_worst(text, {name: scores.auc[name] for name in scores.class_names}, digits=3)
    assert f"{scores.auc['macro']:.3f}" in text
    assert f"{scores.auc['micro']:.3f}" in text


@pytest.mark.parametrize("level", ["window", "clip"])
def test_a_reading_names_its_level(level: Level) -> None:
    text = observations.read_confusion(scores_of([[2, 1], [1, 5]], level=level))
    assert f"of 6 {level}s" in text or f"of 3 {level}s" in text


@pytest.mark.parametrize("read", [observations.read_confusion, observations.read_f1, observations.read_roc])
def test_class_names_are_shown_letter_by_letter(read: Callable[[Scores], str]) -> None:
    matrix = np.diag([9, 9, 0, 9, 9]) + np.roll(np.diag([0, 1, 9, 0, 0]), 1, axis=1)
    blocks = read_markdown(read(scores_of(matrix, HOSTILE)))
    assert [block["t"] for block in blocks] == ["Para"]
    assert HOSTILE[2] in plain_text(blocks)
    assert all(
        f'"t": "{kind}"' not in str(blocks).replace("'", '"') for kind in ("Math", "Strong", "Cite", "RawInline")
    )


# -------------------------------------------------------------------------------------------------- runs and results


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path)


def classes(n_classes: int) -> list[str]:
    return letters(n_classes)


def result(
    store: RunStore,
    *,
    model: str = "cnn",
    protocol: str = "split",
    n_classes: int = 3,
    epochs: int = 2,
    test_fold: int = 1,
    skills: Sequence[float] = (0.6, 0.6, 0.6, 0.6),
    n_fits: int = 4,
    silent_windows: int = 1,
    n_windows: int = 4,
    **scores: float,
) -> ExperimentResult:
    """An experiment with the first ``n_fits`` of its fits done."""
    experiment = Experiment(model=model, protocol=protocol, epochs=epochs, test_fold=test_fold)
    facts = replace(DEMO, class_names=tuple(classes(n_classes)), fingerprint=f"{n_classes:016d}")
    configs = experiment.fits(facts)
    runs = [
        store.load(config)
        if store.exists(config)
        else write_run(store, config, skill=skill, n_windows=n_windows, silent_windows=silent_windows, **scores)
        for config, skill in zip(configs[:n_fits], skills, strict=False)
    ]
    return ExperimentResult(experiment, tuple(runs), tuple(configs[n_fits:]))


@pytest.mark.parametrize(
    ("n_classes", "train", "validation", "forbidden"),
    [
        (10, 0.35, 0.70, "within 10 points"),
        (10, 0.35, 0.70, "above validation"),
        (10, 0.95, 0.60, "no sign of overfitting"),
        (10, 0.95, 0.60, "hardly learnt"),
        (10, 0.05, 0.04, "above chance"),
        (2, 0.72, 0.70, "hardly learnt"),
        (50, 0.72, 0.70, "hardly learnt"),
    ],
)
def test_the_reading_of_curves_never_says_what_is_not_so(
    store: RunStore, n_classes: int, train: float, validation: float, forbidden: str
) -> None:
    shown = result(store, n_classes=n_classes, train_accuracy=train, validation_accuracy=validation, test_accuracy=0.5)
    text = observations.read_curves(shown)
    assert forbidden not in text
    assert percentages(text)[:3] == pytest.approx([100 * validation, 100 * train, 50])


def test_the_reading_of_curves_gives_losses_and_epochs_of_the_history(store: RunStore) -> None:
    shown = result(store, epochs=5)
    text, history = observations.read_curves(shown), shown.best.history
    for value in (history["train_loss"].iloc[0], history["train_loss"].iloc[-1], history["validation_loss"].min()):
        assert f"{value:.2f}" in text
    assert "Epoch 5 is kept" in text
    assert rf"\ln 3 = {np.log(3):.2f}" in text


def test_one_epoch_is_not_told_as_a_course(store: RunStore) -> None:
    text = observations.read_curves(result(store, epochs=1))
    assert not re.search(r"goes from .* to ", text)


@pytest.mark.parametrize("silent_windows", [0, 1])
def test_silent_windows_are_counted(store: RunStore, silent_windows: int) -> None:
    shown = result(store, silent_windows=silent_windows)
    text = observations.read_silence(shown.scores(), shown.best)
    test = shown.best.predictions.query("split == 'test'")
    if not silent_windows:
        assert text == "No test window is silent."
        return
    hits = test[["p_0", "p_1", "p_2"]].to_numpy().argmax(1) == test["y_true"]
    assert text.startswith("1 of the 12 test windows")
    assert percentages(text) == pytest.approx([100 * hits[~test["silent"]].mean()], abs=0.051)
    assert f"{int(hits[test['silent']].sum())} " in text.partition("of which")[2] or "which is" in text


def silence_hits(shown: ExperimentResult) -> list[int]:
    """By every fit, the silent test windows given their class."""
    hits = []
    for run in shown.runs:
        silent = run.predictions.query("split == 'test' and silent")
        hits.append(int((silent[["p_0", "p_1", "p_2"]].to_numpy().argmax(1) == silent["y_true"]).sum()))
    return hits


def test_the_discussion_says_how_far_silent_windows_part_the_fits(store: RunStore) -> None:
    shown = result(store, protocol="kfold", skills=(0.1, 0.9, 0.9, 0.9), silent_windows=3)
    text, hits = observations.discuss_silence([shown, shown]), silence_hits(shown)
    assert min(hits) < max(hits) == 3, "or this shows nothing"
    assert text.startswith("3 of the 12 test windows hold nothing but padding.")
    assert f"Of the 4 fits one has {max(hits)} of them right and another {min(hits)}" in text
    assert f"differ by {100 * (max(hits) - min(hits)) / 12:.1f} points" in text


def test_window_accuracy_ends_where_all_silent_windows_get_their_most_frequent_class(store: RunStore) -> None:
    shown = result(store, protocol="split", silent_windows=1)
    (run,) = shown.runs
    run.predictions.loc[run.predictions["window_index"] == 0, "silent"] = True
    silent = run.predictions.query("split == 'test' and silent")["y_true"]
    assert sorted(silent.value_counts()) == [1, 1, 2]
    text = observations.discuss_silence([shown])
    assert text.startswith("4 of the 12 test windows")
    assert "2 at most are right, and window accuracy ends at 83.3" in text
    assert f"The fit has {silence_hits(shown)[0]} of them right." in text


def test_without_silent_windows_the_discussion_is_silent_on_them(store: RunStore) -> None:
    assert observations.discuss_silence([result(store, silent_windows=0)]) == ""


def test_mean_and_deviation_over_fits_are_those_of_the_test_scores(store: RunStore) -> None:
    shown = result(store, protocol="kfold", skills=(0.2, 0.5, 0.7, 0.9))
    text = observations.read_fits(shown)
    for level in ("window", "clip"):
        values = [run.metrics["scores"]["test"][level]["accuracy"] for run in shown.runs]
        assert f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}\N{NO-BREAK SPACE}%" in text
    assert "4 fits" in text
    assert "±" not in observations.read_fits(result(store, protocol="split"))


@pytest.mark.parametrize(("n_classes", "chance"), [(2, 50), (3, 33), (50, 2)])
def test_chance_follows_from_the_number_of_classes(store: RunStore, n_classes: int, chance: float) -> None:
    assert percentages(observations.read_fits(result(store, n_classes=n_classes)))[-1] == chance


@pytest.mark.parametrize(
    ("n_fits", "named"),
    [(3, r"\bfold 5\b.*\bhas\b"), (2, r"\b4 and 5\b.*\bhave\b"), (0, r"\b2, 3, 4 and 5\b.*\bhave\b")],
)
def test_what_is_missing_is_named(store: RunStore, n_fits: int, named: str) -> None:
    assert re.search(named, observations.read_missing(result(store, protocol="kfold", n_fits=n_fits)))


def test_the_range_over_experiments_is_told_in_points_and_clips(store: RunStore) -> None:
    weak = result(store, protocol="kfold", n_classes=10, skills=[0.1] * 4)
    strong = result(store, model="transformer", protocol="kfold", n_classes=10, skills=[0.9] * 4)
    text = observations.read_comparison([weak, strong])
    low, high = np.mean(weak.values("clip")), np.mean(strong.values("clip"))
    assert percentages(text)[:2] == pytest.approx([100 * low, 100 * high], abs=0.051)
    assert "10 test clips" in text
    assert "10.00 points" in text


def test_experiments_that_are_alike_are_not_ranked(store: RunStore) -> None:
    alike = [result(store, protocol=protocol, skills=[1.0] * 4) for protocol in ("kfold", "split")]
    text = observations.read_comparison(alike)
    assert not re.search(r"range from (\S+\s%) .* to \1", text)


def test_one_fit_each_is_no_cross_validation_to_compare(store: RunStore) -> None:
    single = [result(store, model=model, protocol="kfold", n_fits=1) for model in ("cnn", "transformer")]
    text = observations.discuss_architectures(single)
    assert "no difference is tested" in text
    assert "standard deviation" not in text


def test_the_architectures_are_discussed_by_their_averaged_fits(store: RunStore) -> None:
    cnn = result(store, protocol="kfold", n_classes=10, skills=(0.0, 0.0, 0.0, 0.0))
    transformer = result(store, model="transformer", protocol="kfold", n_classes=10, skills=(0.9, 0.8, 0.9, 0.8))
    text = observations.discuss_architectures([cnn, transformer])
    for shown, name in ((cnn, "the CNN"), (transformer, "the Transformer with 1 head")):
        assert f"{int(shown.answers.averaged_right.sum())} by {name}" in text
    assert "of the 10 test clips" in text


@pytest.mark.parametrize(("skills", "verdict"), [((0.1, 0.9), "more than"), ((0.4, 0.55), "may explain")])
def test_a_check_is_held_against_the_same_experiment_on_the_plans_test_fold(
    store: RunStore, skills: tuple[float, float], verdict: str
) -> None:
    options = {"n_classes": 20, "n_windows": 1, "silent_windows": 0}
    check = result(store, test_fold=3, skills=skills[:1], n_fits=1, **options)
    planned = result(store, skills=skills[1:], n_fits=1, **options)
    text = observations.read_check(check, planned)
    values = [r.values(level)[0] for r in (check, planned) for level in ("window", "clip")]
    assert percentages(text) == pytest.approx([100 * value for value in values], abs=0.051)
    assert re.search(r"clips of test fold 3 correctly, and .* of those of fold 1\.", text)
    n = 20
    rights = [round(r.values("clip")[0] * n) for r in (check, planned)]
    points = 100 * (rights[0] - rights[1]) / n
    assert f"That is {abs(points):.1f} points {'more' if points > 0 else 'fewer'} of the clips" in text
    assert verdict in text
    p = stats.fisher_exact([[right, n - right] for right in rights]).pvalue
    assert (p < 0.05) == ("more than the choice" in text)
    assert f"p = {p:.2f}" in text or p < 0.01


def test_a_check_that_is_alike_alone_or_missing_is_told_as_such(store: RunStore) -> None:
    perfect = [result(store, test_fold=fold, skills=[1.0], n_fits=1) for fold in (3, 1)]
    alike = observations.read_check(*perfect)
    assert "points" not in alike
    assert "Fisher" not in alike
    alone = observations.read_check(perfect[0], None)
    assert percentages(alone) == [100.0, 100.0]
    missing = observations.read_check(result(store, test_fold=2, n_fits=0), perfect[1])
    assert missing.replace("\\", "").startswith("**Missing:** of *CNN: train-test split (test fold 2)*, the fit with")


@pytest.mark.parametrize(
    ("p", "text"), [(1.0, "p = 1.00"), (0.0437, "p = 0.04"), (0.0042, "p = 0.004"), (1e-9, "p < 0.001")]
)
def test_p_values_are_rounded_but_not_to_zero(p: float, text: str) -> None:
    assert observations.p_value(p) == text


@pytest.mark.parametrize(("skill", "where"), [(0.35, "inside"), (0.95, "outside")])
def test_the_originals_accuracy_is_placed_inside_or_outside_our_interval(
    store: RunStore, skill: float, where: str
) -> None:
    shown = result(store, protocol="kfold", n_classes=10, skills=[skill] * 4)
    low, high = shown.intervals["window"]
    assert (low <= 305 / 720 <= high) == (where == "inside"), "the original's 305 of 720 windows"
    text = observations.read_original([shown])
    assert f"lies {where} our interval of {100 * low:.1f} to {100 * high:.1f}\N{NO-BREAK SPACE}%" in text
    points = 100 * (np.mean(shown.values("window")) - 305 / 720)
    assert f"{abs(points):.1f} points {'above' if points > 0 else 'below'}" in text


def test_the_abstract_counts_experiments_and_fits_once(store: RunStore) -> None:
    both = [result(store, protocol=protocol, epochs=7) for protocol in ("kfold", "split")]
    text = observations.write_abstract(both)
    assert "2 experiments" in text
    assert "4 fits" in text, "the split's fit is one of them"
    assert "7 epochs" in text
    one = observations.write_abstract([result(store, epochs=1)])
    assert not re.search(r"\b1 (experiments|fits|epochs)\b|\bof 1 epochs\b", one)
    assert "incomplete" in observations.write_abstract([result(store, protocol="kfold", n_fits=1)])


def test_without_runs_the_texts_say_so() -> None:
    nothing = [ExperimentResult(Experiment(model="cnn"), (), None)]
    assert "No fit has been trained yet" in observations.write_abstract(nothing)
    assert "nothing to discuss" in observations.discuss(nothing)
    assert "no fit" in observations.read_missing(nothing[0])


@pytest.mark.parametrize("n_classes", [2, 50])
@pytest.mark.parametrize("skill", [0.0, 1.0])
def test_no_text_holds_an_undefined_number_or_bad_grammar(store: RunStore, n_classes: int, skill: float) -> None:
    shown = [
        result(store, model=model, protocol=protocol, n_classes=n_classes, skills=[skill] * 4)
        for model in ("cnn", "transformer")
        for protocol in ("kfold", "split")
    ]
    scores = shown[0].scores()
    texts = [observations.read_curves(shown[0]), observations.read_fits(shown[0]), observations.read_comparison(shown)]
    texts += [observations.read_confusion(scores), observations.read_roc(scores), observations.read_f1(scores)]
    texts += [observations.write_abstract(shown), *observations.discuss(shown).split("\n\n")]
    for text in texts:
        assert not re.search(r"\bnan\b|\binf\b|-0\b|\bNone\b|\b1 (?:clips|times|experiments|fits)\b", text), text
        assert text.endswith(".")
        assert len(read_markdown(text)) == 1
