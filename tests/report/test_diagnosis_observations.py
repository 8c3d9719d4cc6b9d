"""Readings of the diagnosis say what its numbers say: both ways round, and nothing where there is nothing."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from shown import outputs_of
from synthetic import DEMO, draw_trace, write_diagnosis, write_run

from audioclf_lib.config import Experiment
from audioclf_lib.report import diagnosis_observations as readings
from audioclf_lib.report import diagnosis_sections as sections
from audioclf_lib.report.pandoc import read_markdown
from audioclf_lib.report.results import gather_diagnosis, split_beside_kfold
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.plan import Plan
from audioclf_lib.suite.variants import AS_WRITTEN, HIGH_RATE, REMEDIES, VARIANTS, Case, Diagnosis

PLAN = Plan(name="d", epochs=5, diagnosis_epochs=3, experiments=({"model": "cnn", "protocol": "split"},))


def percentages(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(\d+(?:\.\d+)?)\N{NO-BREAK SPACE}%", text)]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def cases(store: RunStore) -> list[Case]:
    write_diagnosis(store, PLAN)
    found = gather_diagnosis(PLAN, store.runs_dir)
    assert found is not None
    return found


def case_of(cases: list[Case], name: str, model: str = "transformer") -> Case:
    return next(case for case in cases if (case.variant.name, case.model) == (name, model))


def scores_of(case: Case) -> readings.CaseScores:
    assert case.run is not None
    return readings.score_case(case, case.run)


# --- numbers -------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_run_and_of_the_table_beside_it(cases: list[Case]) -> None:
    for case, scores in zip(cases, readings.score_cases(cases), strict=True):
        assert case.run is not None and case.rescored is not None
        expected = case.run.metrics["scores"]["test"]
        assert scores.test == pytest.approx(expected["window"]["accuracy"])
        assert scores.test_clip == pytest.approx(expected["clip"]["accuracy"])
        assert scores.again_test == case.rescored.loc["test", "accuracy"]
        test = case.run.predictions.query("split == 'test'")
        answers = test.filter(regex=r"^p_\d+$").to_numpy().argmax(1)
        share = pd.Series(answers).value_counts(normalize=True)
        assert scores.answer_share == pytest.approx(share.max())
        assert share[DEMO.class_names.index(scores.answer)] == share.max()


def test_the_length_is_that_of_the_fits(cases: list[Case]) -> None:
    text = readings.read_length(cases)
    assert "3 epochs" in text
    assert "validated on fold 2 and tested on fold 1" in text


def test_the_reading_as_written_gives_the_numbers_of_both_architectures(cases: list[Case]) -> None:
    text = readings.read_as_written(cases)
    for model in ("cnn", "transformer"):
        case = case_of(cases, "as written", model)
        assert case.run is not None
        scores = scores_of(case)
        for value in (case.run.history["train_accuracy"].iloc[-1], scores.validation, scores.test, scores.test_clip):
            assert f"{100 * value:.1f}\N{NO-BREAK SPACE}%" in text
    assert text.count("As written") == 2


@pytest.mark.parametrize(("right", "told"), [(1, "not to be told from guessing"), (7, "more than guessing gives")])
def test_whether_as_written_learns_depends_on_its_clips(store: RunStore, right: int, told: str) -> None:
    (case, *_) = Diagnosis(epochs=2).cases(DEMO)
    run = write_run(store, case.config, test_clip_accuracy=right / 10)
    assert told in readings.read_as_written([replace(case, run=run)])


# --- remedies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (0.15, 0.31, "found more than the evaluation showed"),
        (0.31, 0.15, "no hindrance"),
        (0.2, 0.2001, "leaves the weights as written at 20.0"),
    ],
)
def test_wrong_statistics_are_blamed_only_where_others_score_higher(
    cases: list[Case], before: float, after: float, told: str
) -> None:
    text = readings.read_statistics(replace(scores_of(cases[0]), test=before, again_test=after))
    assert told in text
    assert 100 * after == pytest.approx(percentages(text)[0], abs=0.051)


def test_the_same_training_is_claimed_only_of_equal_losses(cases: list[Case], store: RunStore) -> None:
    written, again = (case_of(cases, name, "cnn") for name in ("as written", "statistics re-estimated"))
    assert written.run is not None and again.run is not None
    assert readings.read_same_training([written, again]) == "", "drawn losses differ"
    history = again.run.history.assign(train_loss=written.run.history["train_loss"])
    again.run.__dict__["history"] = history
    text = readings.read_same_training([written, again])
    assert "the very same training losses" in text
    best = [run.history["validation_accuracy"].max() for run in (again.run, written.run)]
    assert percentages(text) == pytest.approx([100 * value for value in best], abs=0.051)


def test_the_other_remedies_are_compared_on_equal_terms_the_best_first(cases: list[Case]) -> None:
    by_variant = {scores.variant: scores for scores in readings.score_cases(cases) if scores.model == "CNN"}
    text = readings.read_single(by_variant)
    shown = re.findall(r"\*([\w\\ -]+)\* ([+−±])(\d+\.\d)", text)
    base = by_variant["as written"].again_test
    points = []
    for name, sign, value in shown:
        change = 100 * (by_variant[name.replace("\\", "")].again_test - base)
        assert float(value) == pytest.approx(abs(change), abs=0.051)
        assert sign == ("±" if value == "0.0" else "+" if change > 0 else "−")
        points.append(change)
    assert len(points) == len(REMEDIES) - 1
    assert points == sorted(points, reverse=True)


def test_the_reading_of_remedies_has_a_paragraph_per_architecture_and_what_a_clip_is_worth(cases: list[Case]) -> None:
    paragraphs = readings.read_remedies(cases).split("\n\n")
    assert [paragraph.partition(".")[0].strip("*") for paragraph in paragraphs[:2]] == ["CNN", "Transformer, 1 head"]
    assert "10 test clips" in paragraphs[2]
    assert len(paragraphs) == 3


# --- the higher rate -----------------------------------------------------------------------------------------------


def with_one_answer(case: Case, store: RunStore, *, train: float = 0.1, test: float = 0.1) -> Case:
    """The case with a run that answers *baby cry* always, with these shares of training and test clips right."""
    run = write_run(store, case.config, train_clip_accuracy=train, test_clip_accuracy=test)
    rows = run.predictions.copy()
    rows[[f"p_{index}" for index in range(10)]] = 0.0
    rows["p_3"] = 1.0
    run.__dict__["predictions"] = rows
    return replace(case, run=run)


def test_a_rate_at_which_training_guesses_and_gives_one_answer_explains_the_original(store: RunStore) -> None:
    case = case_of(Diagnosis(epochs=2).cases(DEMO), HIGH_RATE.name)
    text = readings.read_high_rate([with_one_answer(case, store)])
    assert "is enough to explain it" in text
    assert "100.0\N{NO-BREAK SPACE}% of the answers are *baby cry*" in text
    assert rf"\ln 10 = {math.log(10):.2f}" in text


@pytest.mark.parametrize("learnt", [{"train": 0.8}, {"test": 0.8}], ids=str)
def test_a_rate_at_which_it_learns_does_not(store: RunStore, learnt: dict[str, float]) -> None:
    case = case_of(Diagnosis(epochs=2).cases(DEMO), HIGH_RATE.name)
    text = readings.read_high_rate([with_one_answer(case, store, **learnt)])
    assert "does not explain it" in text
    assert "enough" not in text


@pytest.mark.parametrize("learns", [True, False])
def test_the_evaluation_is_blamed_for_the_one_answer_only_where_training_learns(
    cases: list[Case], learns: bool
) -> None:
    written = replace(scores_of(cases[0]), test=0.1, again_test=0.3, answer_share=1.0, learns=learns)
    assert ("can come from the evaluation alone" in readings.read_statistics(written)) == learns


# --- inside --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alike", [True, False])
def test_one_output_for_all_windows_is_claimed_only_where_the_cosine_says_so(cases: list[Case], alike: bool) -> None:
    trace = draw_trace("any", similarity=0.9999 if alike else 0.97)
    changed = [replace(case, trace=trace) if case.variant is HIGH_RATE else case for case in cases]
    text = readings.read_internals(changed)
    assert ("so it is in *rate ten times as high*." in text) == alike
    assert ("In none of them" in text) == (not alike)


def test_the_inside_is_read_off_the_end_of_the_traces(cases: list[Case]) -> None:
    text = readings.read_internals(cases)
    assert "After 12 steps" in text
    for case in cases:
        if case.trace is not None:
            last = case.trace.dropna().iloc[-1]
            assert f"{last['similarity']:.3f} ({case.variant.name})" in text
            assert f"{last['entropy_layer1']:.2f} ({case.variant.name})" in text
            assert f"{case.trace['gradient_base'].iloc[-3:].median():.2g} ({case.variant.name})" in text


# --- split and k-fold ----------------------------------------------------------------------------------------------


def test_the_splits_fit_is_the_k_fold_fit_and_has_its_score(store: RunStore) -> None:
    split = Experiment(model="cnn", protocol="split", epochs=2, recipe="as-written", runs_dir=store.runs_dir)
    (config,) = split.fits(DEMO)
    run = write_run(store, config)
    kfold, own = split_beside_kfold(split, DEMO)
    assert (kfold.experiment.protocol, own.experiment.protocol) == ("kfold", "split")
    assert kfold.best.path == own.best.path == run.path
    text = readings.read_one_fit(kfold, own)
    scores = run.metrics["scores"]["test"]["window"]
    assert f"{round(scores['accuracy'] * scores['n'])} of {scores['n']} test windows are right" in text


def test_two_fits_are_not_taken_for_one(store: RunStore) -> None:
    splits = [Experiment(model="cnn", protocol="split", epochs=2, seed=s, runs_dir=store.runs_dir) for s in (0, 1)]
    for split in splits:
        write_run(store, split.fits(DEMO)[0])
    (kfold, _), (_, other) = (split_beside_kfold(split, DEMO) for split in splits)
    assert "is not the k-fold fit" in readings.read_one_fit(kfold, other)


def test_the_originals_two_scores_are_told_apart_by_their_distance() -> None:
    assert percentages(readings.read_evaluation_error()) == [42.4, 9.16]
    assert "33 points" in readings.read_evaluation_error()
    assert "66;" in readings.read_claims().replace("are 66", "66")


# --- what is missing -----------------------------------------------------------------------------------------------


def test_what_is_missing_is_named(cases: list[Case]) -> None:
    assert readings.read_missing_cases(cases) == ""
    some = [replace(case, run=None) if case.variant.name == "mixup_alpha" else case for case in cases]
    some = [replace(case, trace=None) if case.variant is AS_WRITTEN else case for case in some]
    text = readings.read_missing_cases(some)
    assert "not yet trained: *mixing* (CNN) and *mixing* (Transformer, 1 head)." in text
    assert "not yet looked into: *as written* (Transformer, 1 head)." in text
    none = [replace(case, run=None) for case in cases]
    assert readings.read_missing_cases(none) == "**Missing:** no fit of the diagnosis has been trained yet."


def kinds(shown: list[Case] | None) -> list[str]:
    return [output.metadata.report.kind for output in outputs_of(lambda: sections.show_diagnosis(shown))]


def test_the_section_shows_what_is_there(cases: list[Case], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path))
    whole = kinds(cases)
    assert (whole.count("figure"), whole.count("table")) == (2, 1)
    assert kinds([replace(case, trace=None) for case in cases]).count("figure") == 1
    assert kinds([replace(case, run=None, trace=None) for case in cases]) == ["text", "text"]
    assert kinds([]) == ["text", "text"]
    assert kinds(None) == []


def test_no_text_holds_an_undefined_number_or_bad_grammar(cases: list[Case]) -> None:
    few = [replace(case, rescored=None, trace=None) for case in cases if case.variant is not REMEDIES[2]]
    for some in (cases, few, cases[:1]):
        texts = [readings.read_as_written(some), *readings.read_remedies(some).split("\n\n")]
        texts += [readings.read_high_rate(some), readings.read_internals(some), readings.read_length(some)]
        for text in filter(None, texts):
            assert not re.search(r"\bnan\b|\binf\b|-0\b|\bNone\b|\b1 (?:clips|steps|epochs)\b", text), text
            assert text.endswith(".")
            assert len(read_markdown(text)) == 1


def test_changes_are_written_as_the_settings_are_named() -> None:
    written = {variant.name: sections.describe_changes(variant.changes) for variant in VARIANTS}
    assert written["as written"] == "none"
    assert written["warm-up"] == "schedule = one-cycle, warmup = 0.2"
    assert written["silent windows left out"] == "drop_silent = true"
