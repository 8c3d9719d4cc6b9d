"""The model card: every number from the run folder, and what the run must not be used for."""

from __future__ import annotations

from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from mistune import html
from synthetic import DEMO, write_run

from audioclf_lib.config import Experiment
from audioclf_lib.metrics import evaluate
from audioclf_lib.metrics.results import ExperimentResult
from audioclf_lib.report.card import model_card
from audioclf_lib.report.tables import percent
from audioclf_lib.runs import Run, RunStore


def experiment() -> Experiment:
    return Experiment(model="transformer", num_heads=2, protocol="split", epochs=12)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(RunStore(tmp_path), experiment().fits(DEMO)[0])


def cells(card: str) -> list[list[str]]:
    return [[cell.get_text() for cell in row(["td", "th"])] for row in BeautifulSoup(html(card), "html.parser")("tr")]


def test_scores_are_those_of_the_report_with_their_intervals(run: Run) -> None:
    result = ExperimentResult(experiment(), (run,))
    (row,) = [row for row in cells(model_card(run)) if row[0] == "Test"]
    expected = [percent(result.mean(level), interval=result.intervals[level]) for level in ("window", "clip")]
    assert row == ["Test", "10", "10", *expected]


def test_every_class_has_its_row_with_its_scores(run: Run) -> None:
    rows = {row[0]: row for row in cells(model_card(run)) if len(row) == 6}
    scores = evaluate(run.predictions, run.config.class_names, level="clip").per_class
    for name, values in scores.iterrows():
        assert float(rows[str(name)][2]) == pytest.approx(values["recall"], abs=0.01)


def test_it_says_what_was_trained_on_and_what_it_is_not_for(run: Run) -> None:
    shown = BeautifulSoup(html(model_card(run)), "html.parser").get_text()
    config, wrong = run.config, 1 - evaluate(run.predictions, run.config.class_names, level="clip").accuracy
    facts = [config.fit_id, config.fingerprint, "folds 3, 4, 5", "fold 2 chose", "test fold is 1", *config.class_names]
    facts += ["12 of 12", "50 clips of 50 recordings", "must not be used for", f"{100 * wrong:.1f}"]
    for fact in facts:
        assert fact in shown, fact
    assert "<!--" not in model_card(run) and "{{" not in model_card(run)


def test_names_are_shown_letter_by_letter(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", "[click](javascript:1)", *DEMO.class_names[2:])
    config = experiment().fits(DEMO)[0].model_copy(update={"class_names": names})
    card = html(model_card(write_run(RunStore(tmp_path), config)))
    assert "<script" not in card and "<a " not in card
    assert names[1] in BeautifulSoup(card, "html.parser").get_text()


def test_a_tuning_trial_is_shown_with_its_validation_scores(tmp_path: Path) -> None:
    run = write_run(RunStore(tmp_path), experiment().tuning_fit(DEMO))
    trial = run.predictions[run.predictions["split"] != "test"]
    object.__setattr__(run, "predictions", trial)
    card = model_card(run)
    assert "of the validation clips" in card and "| Test " not in card
