"""What is called real is real, what is not is not, and every number in a verdict is one of the statistics."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import outputs_of
from synthetic import DEMO, write_run

from audioclf_lib.config import Experiment
from audioclf_lib.metrics.uncertainty import PairTest, calibrate, clips_needed
from audioclf_lib.report import observations, phrases, uncertainty, verdicts
from audioclf_lib.report.pandoc import read_markdown
from audioclf_lib.report.results import ExperimentResult, compare_kfold, gather
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.plan import Plan

FACTS = replace(DEMO, class_names=("hum", "hiss", "click"))
NBSP = phrases.NBSP
DIFFERENCE = re.compile(
    rf"the ([A-Z][^:;]*?) is better than the ([A-Z][^:;]*?) \((\d+) against (\d+) of the (\d+) test clips?, "
    rf"([\d.]+) points, p{NBSP}(?:={NBSP})?([<\d.{NBSP}]+)\)"
)


@pytest.fixture(autouse=True, scope="module")
def little_garbage() -> Iterator[None]:
    """statsmodels collects garbage with every correction, which takes half a second among torch's many objects."""
    gc.freeze()
    yield
    gc.unfreeze()


def percentages(text: str) -> list[float]:
    """All numbers of ``4.5 to 6.1 %`` and ``7 %``."""
    shares = re.findall(rf"(?:(\d+(?:\.\d+)?) to )?(\d+(?:\.\d+)?){NBSP}%", text)
    return [float(number) for pair in shares for number in pair if number]


def results(
    store: RunStore,
    *,
    skills: Sequence[float] = (0.3, 0.6),
    protocols: Sequence[str] = ("kfold",),
    seeds: Sequence[int] = (0,),
    **options: Any,
) -> list[ExperimentResult]:
    """The CNN and Transformers of a plan, every fit of a model with the same skill."""
    models: list[dict[str, Any]] = [{"model": "cnn"}, *({"model": "transformer", "num_heads": h} for h in (1, 2, 4))]
    chosen = models[: len(skills)]
    experiments = tuple(model | {"protocol": protocol} for model in chosen for protocol in protocols)
    plan = Plan(name="small", epochs=1, seeds=tuple(seeds), experiments=experiments)
    for experiment in plan.experiments_list():
        position = chosen.index(experiment.model_dump(include={"model", "num_heads"}, exclude_none=True))
        for config in experiment.fits(FACTS):
            if not store.exists(config):
                write_run(store, config, skill=skills[position], **{"n_windows": 2, "silent_windows": 1} | options)
    return gather(plan, store.runs_dir)


def differences_shown(there: list[ExperimentResult]) -> list[str]:
    """Markdown of the table, if there is one, and of the text."""
    return [output.data["text/markdown"] for output in outputs_of(lambda: uncertainty.show_differences(there))]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


# ----------------------------------------------------------------------------------------------------------- intervals


def test_the_intervals_of_an_experiment_are_told_with_its_averaged_accuracy(store: RunStore) -> None:
    kfold, split = results(store, skills=[0.3], protocols=("kfold", "split"), clips_per_class=7)
    intervals = [100 * end for level in ("window", "clip") for end in kfold.intervals[level]]
    averaged = [100 * value for value in (kfold.averaged_accuracy, *kfold.averaged_interval)]
    assert percentages(verdicts.read_intervals(kfold)) == pytest.approx([95, *intervals, *averaged], abs=0.051)
    assert "averaged" not in verdicts.read_intervals(split), "one fit is no average"


@pytest.mark.parametrize(("clips_per_class", "rough"), [(1, True), (7, False)])
def test_few_clips_are_said_to_give_rough_intervals(store: RunStore, clips_per_class: int, rough: bool) -> None:
    (result,) = results(store, skills=[0.5], clips_per_class=clips_per_class)
    assert ("rough" in verdicts.read_intervals(result)) == rough


def test_the_widest_reach_of_the_intervals_is_told(store: RunStore) -> None:
    there = results(store, skills=(0.0, 0.9), clips_per_class=4)
    ends = [(r.answers.clip_shares.mean(), r.intervals["clip"]) for r in there]
    reach = {
        f"{100 * max(mean - interval.low for mean, interval in ends):.0f}",
        f"{100 * max(interval.high - mean for mean, interval in ends):.0f}",
    }
    assert set(re.findall(r"(\d+) points", verdicts.read_reach(there))) == reach


def test_what_averaging_gains_is_the_distance_to_the_mean_of_the_fits(store: RunStore) -> None:
    (result,) = results(store, skills=[0.4], clips_per_class=4)
    gain = 100 * (result.averaged_accuracy - np.mean(result.values("clip")))
    assert gain > 0.1
    assert f"+{gain:.1f} points" in verdicts.read_averaging([result])
    assert verdicts.read_averaging(results(store, skills=[0.4], protocols=["split"])) == ""


# ---------------------------------------------------------------------------------------------------------- differences


def experiment(model: str, num_heads: int | None = None, seed: int = 0) -> ExperimentResult:
    return ExperimentResult(Experiment(model=model, num_heads=num_heads, seed=seed), ())


NAMED = {
    result.name: result
    for result in (
        experiment("cnn"),
        *(experiment("transformer", heads) for heads in (1, 2, 4)),
        experiment("cnn", seed=3),
    )
}


@st.composite
def families(draw: st.DrawFn) -> list[PairTest]:
    """Tests of pairs of experiments with any outcome; a difference of none is never real."""
    n_clips = draw(st.sampled_from([1, 10, 80]))
    pairs = draw(st.lists(st.sampled_from([(a, b) for a in NAMED for b in NAMED if a < b]), min_size=1, unique=True))
    tests = []
    for pair in pairs:
        right = (draw(st.integers(0, n_clips)), draw(st.integers(0, n_clips)))
        p = draw(st.sampled_from([0.0001, 0.03, 0.2, 1.0])) if right[0] != right[1] else 1.0
        tests.append(PairTest(pair, n_clips, right, right, p, p))
    return tests


@settings(deadline=None, max_examples=60)
@given(families())
def test_exactly_the_real_differences_are_called_real_with_the_better_one_first(tests: list[PairTest]) -> None:
    text = verdicts.tell_verdict(tests, NAMED)
    told = DIFFERENCE.findall(text)
    real = [test for test in tests if test.p_holm < 0.05]
    assert len(told) == len(real)
    assert (" real" in text) == bool(real)
    assert ("chance" in text) == (not real)
    for test, (better, worse, high, low, n_clips, points, p) in zip(real, told, strict=True):
        names = [phrases.in_words(NAMED[name]).removeprefix("the ") for name in test.names]
        assert sorted([better, worse]) == sorted(names)
        assert int(high) == test.right[names.index(better)] > int(low) == test.right[names.index(worse)]
        assert int(n_clips) == test.n_clips
        assert float(points) == pytest.approx(100 * (int(high) - int(low)) / int(n_clips), abs=0.051)
        assert p == phrases.p_value(test.p_holm)
    if real and len(real) < len(tests):
        assert text.startswith(f"{len(real)} of the {len(tests)} differences")


@settings(deadline=None, max_examples=60)
@given(families())
def test_a_brief_verdict_counts_alike_and_favours_only_who_always_wins(tests: list[PairTest]) -> None:
    brief = verdicts.tell_verdict(tests, NAMED, brief=True)
    assert brief.split(":")[0].split(",")[0].split(" (")[0] in verdicts.tell_verdict(tests, NAMED)
    real = [test for test in tests if test.is_real]
    assert len(DIFFERENCE.findall(brief)) == (len(real) if len(real) <= 2 else 0)
    winners = {test.ranked[0] for test in real}
    favoured = re.search(r"in favour of the (.*)$", brief)
    if favoured:
        assert [phrases.in_words(NAMED[name]) for name in winners] == [f"the {favoured.group(1)}"]
    if "favour of a Transformer" in brief:
        assert all(name.startswith("transformer") for name in winners)
        assert all(test.ranked[1].startswith("cnn") for test in real)


def test_transformers_that_all_beat_the_cnn_are_favoured_together() -> None:
    pairs = [("cnn-kfold", f"transformer-h{heads}-kfold") for heads in (1, 2, 4)]
    tests = [PairTest(pair, 80, (20, 60), (5, 45), 1e-6, 3e-6) for pair in pairs]
    assert verdicts.tell_verdict(tests, NAMED, brief=True) == (
        "all 3 differences are real, each in favour of a Transformer over the CNN"
    )
    won = [replace(test, right=(60, 20)) for test in tests]
    assert verdicts.tell_verdict(won, NAMED, brief=True).endswith("each in favour of the CNN")


@pytest.mark.parametrize("n_real", [0, 1, 2])
@pytest.mark.parametrize("n_clips", [5, 80])
def test_the_smallest_difference_that_could_be_found_is_told(n_real: int, n_clips: int) -> None:
    """Holm's correction leaves the other pairs alone once the first is real."""
    pairs = [("cnn-kfold", "transformer-h1-kfold"), ("cnn-kfold", "transformer-h2-kfold")]
    tests = [
        PairTest(pair, n_clips, (4, 1), (3, 0), *((0.001, 0.002) if position < n_real else (0.5, 1.0)))
        for position, pair in enumerate(pairs)
    ]
    text, needed = verdicts.read_power(tests), clips_needed(2 - n_real) if n_real < 2 else None
    if needed is None:
        assert text == ""
    elif needed > n_clips:
        assert "however large" in text
        assert f"at least {needed} clips" in text
    else:
        assert f"fewer than {needed} clips ({100 * needed / n_clips:.1f} points)" in text


def test_a_large_difference_is_found_and_told_in_table_text_abstract_and_discussion(store: RunStore) -> None:
    there = results(store, skills=(0.0, 0.9, 0.9), clips_per_class=10)
    tests = compare_kfold(there)
    assert [test.is_real for test in tests] == [True, True, False]
    told = DIFFERENCE.findall(verdicts.read_differences(there))
    assert [(better, worse) for better, worse, *_ in told] == [
        ("Transformer with 1 head", "CNN"),
        ("Transformer with 2 heads", "CNN"),
    ]
    assert "2 of the 3 differences are real" in observations.write_abstract(there)
    discussion = observations.discuss_architectures(there)
    assert "Between the CNN and Transformers, both differences are real" in discussion
    assert re.search("Between head counts, the difference .* cannot be told from chance", discussion)
    for result in there:
        right = int(result.answers.averaged_right.sum())
        assert f"{right} by {phrases.in_words(result)}" in discussion
    table = differences_shown(there)[0]
    for test in tests:
        row = rf"{test.right[0]}{NBSP}\\:{NBSP}{test.right[1]} \| {test.only[0]}{NBSP}\\:{NBSP}{test.only[1]} "
        assert re.search(row, table)
    assert table.count("not shown") == 1


def test_what_is_incomplete_is_not_tested_but_named(store: RunStore) -> None:
    cnn, transformer, unfinished = results(store, skills=(0.3, 0.6, 0.6))
    unfinished = replace(unfinished, runs=unfinished.runs[1:], missing=(unfinished.runs[0].config,))
    text = verdicts.read_differences([cnn, transformer, unfinished])
    assert "Not tested, since fits are missing: the Transformer with 2 heads." in text
    assert "2 heads" not in text.partition("Not tested")[0]


@pytest.mark.parametrize("skills", [(0.3,), (0.3, 0.6)])
def test_without_two_cross_validations_nothing_is_tested_and_nothing_is_called_real(
    store: RunStore, skills: Sequence[float]
) -> None:
    there = results(store, skills=skills, protocols=["split"] if len(skills) > 1 else ["kfold", "split"])
    assert "no difference is tested" in verdicts.read_differences(there)
    texts = [*differences_shown(there), observations.discuss(there)]
    assert not any("Table:" in text for text in texts)
    assert not any(re.search(r"\breal\b|McNemar", text) for text in [*texts, observations.write_abstract(there)])


# ---------------------------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize(
    ("accuracy", "verdict"), [(0.5, "too sure"), (0.8, "as sure as it should be"), (1.0, "not sure enough")]
)
def test_too_much_and_too_little_confidence_are_told_apart(store: RunStore, accuracy: float, verdict: str) -> None:
    (result,) = results(store, skills=[0.5], protocols=["split"])
    y_true = (np.arange(1000) >= 1000 * accuracy).astype(int)
    result.__dict__["calibration"] = calibrate(y_true, np.tile([0.8, 0.2], (1000, 1)))
    text = verdicts.read_calibration(result)
    assert verdict in text
    assert percentages(text) == pytest.approx([80, 100 * accuracy])
    assert f"{abs(0.8 - accuracy):.3f}" in text


def test_lowest_and_highest_calibration_error_are_told_for_each_protocol(store: RunStore) -> None:
    there = results(store, skills=(0.1, 0.5, 0.9), protocols=("kfold", "split"))
    text = verdicts.read_calibrations(there)
    for protocol in ("kfold", "split"):
        errors = [result.calibration.ece for result in there if result.experiment.protocol == protocol]
        assert f"from {min(errors):.3f}" in text
        assert f"to {max(errors):.3f}" in text
    assert "On the split" not in verdicts.read_calibrations(there[:3])


# ---------------------------------------------------------------------------------------------------------- every text


@pytest.mark.parametrize("skill", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seeds", [(0,), (0, 3)])
def test_no_text_holds_an_undefined_number_or_bad_grammar(store: RunStore, skill: float, seeds: Sequence[int]) -> None:
    there = results(store, skills=(skill, skill), protocols=("kfold", "split"), seeds=seeds)
    texts = [read(there) for read in (verdicts.read_differences, verdicts.read_calibrations, verdicts.read_reach)]
    texts += [read(there[0]) for read in (verdicts.read_intervals, verdicts.read_calibration)]
    texts += [observations.discuss_architectures(there), observations.write_abstract(there)]
    for text in texts:
        assert not re.search(r"\bnan\b|\binf\b|[-−]0\.0\b|\bNone\b|\b1 (?:clips|fits|differences)\b|\ball 2\b", text), (
            text
        )
        assert text.endswith(".")
        assert len(read_markdown(text)) == 1


def test_the_method_names_the_numbers_that_are_used() -> None:
    text = verdicts.tell_method()
    for number in ("9,999", "95", "0.05", "15 bins"):
        assert number in text
    assert len(read_markdown(text)) == 3


@pytest.mark.parametrize(
    ("p", "shown"), [(1.0, "1.000"), (0.0312, "0.031"), (0.0005, "0.001"), (0.00049, f"<{NBSP}0.001")]
)
def test_small_p_are_not_rounded_to_nothing(p: float, shown: str) -> None:
    assert phrases.p_value(p) == shown
