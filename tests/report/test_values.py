"""The values that texts may name are those of the runs, and say what is missing."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from synthetic import DEMO, write_run, write_runs

from audioclf_lib.metrics.uncertainty import p_value
from audioclf_lib.report.gather import Gathered, gather
from audioclf_lib.report.values import NOT_TRAINED, UNDEFINED, Value, key_result, report_values
from audioclf_lib.runs.store import RunStore
from audioclf_lib.suite.plan import Plan

NBSP = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Gathered:
    """A complete CNN; a Transformer of which one fit is there, and another of which none is."""
    folder = tmp_path_factory.mktemp("runs")
    first = ({"model": "cnn", "protocol": ["kfold", "split"]},)
    transformers = {"model": "transformer", "num_heads": [1, 2], "protocol": "kfold"}
    plan = Plan(name="part", epochs=2, experiments=(*first, transformers), contrasts=(("cnn", "transformer-h1"),))
    write_runs(RunStore(folder), plan.changed(experiments=first, contrasts=()))
    one = next(each for each in plan.experiments_list() if each.label == "transformer-h1")
    write_run(RunStore(folder), one.fits(DEMO)[0])
    (folder / "trials.csv").write_text("model,val_fold\ncnn,2\ncnn,4\n")
    return gather(plan, folder)


def test_numbers_of_an_experiment_are_those_of_its_runs(found: Gathered) -> None:
    values, cnn = report_values(found), found.results[0]
    for level in ("window", "clip"):
        shown = values[f'accuracy("cnn", "kfold", "{level}")']
        assert shown.content == cnn.mean(level)
        assert shown.write() == f"{100 * cnn.mean(level):.1f}{NBSP}%"
        ends = [values[f'{end}("cnn", "kfold", "{level}")'].content for end in ("low", "high")]
        assert ends == list(cnn.intervals[level])
    training = [run.metrics["scores"]["train"]["clip"]["accuracy"] for run in cnn.runs]
    assert values['accuracy("cnn", "kfold", "clip", "train")'].content == pytest.approx(sum(training) / 4)
    assert values['parameters("cnn")'].write() == "128,682"
    assert values['trials("cnn")'].content == 2


def test_what_is_planned_and_not_trained_has_its_value_all_the_same(found: Gathered) -> None:
    values = report_values(found)
    assert values['accuracy("transformer-h2", "kfold", "clip")'].write() == NOT_TRAINED
    assert values['accuracy("transformer-h1", "kfold", "clip")'].write().endswith("% (1 of 4 fits)")
    assert values['verdict("cnn", "transformer-h1")'].write() == NOT_TRAINED, "one side is not complete"
    assert 'accuracy("cnn", "rotation", "clip")' not in values, "no such experiment is planned"


def test_a_contrast_is_told_with_its_test(tmp_path: Path) -> None:
    pair = ("cnn", "transformer-h1")
    experiments = ({"model": "cnn", "protocol": "kfold"}, {"model": "transformer", "protocol": "kfold"})
    plan = Plan(name="two", epochs=2, experiments=experiments, contrasts=(pair,))
    write_runs(RunStore(tmp_path), plan)
    found = gather(plan, tmp_path)
    values, (contrast,) = report_values(found), found.contrasts
    assert values['difference("cnn", "transformer-h1")'].content == pytest.approx(100 * contrast.difference)
    assert values['p("cnn", "transformer-h1")'].write() == p_value(contrast.p_holm)
    assert values['verdict("cnn", "transformer-h1")'].content


def test_a_number_that_does_not_exist_is_told_as_such_whatever_its_format() -> None:
    assert Value(float("nan"), ".1f").write() == Value(float("nan")).write(".0%") == UNDEFINED


def test_one_fit_of_one_experiment_is_no_plural(tmp_path: Path) -> None:
    plan = Plan(name="one", epochs=1, experiments=({"model": "cnn", "protocol": "split"},))
    write_runs(RunStore(tmp_path), plan)
    assert report_values(gather(plan, tmp_path))["extent"].write() == "1 experiment with 1 fit of 1 epoch"


def test_data_are_counted(found: Gathered) -> None:
    values = report_values(found)
    sizes = [values[name].content for name in ("n_clips", "n_folds", "n_windows", "n_samples")]
    assert sizes == [50, 5, 9, 80_000]
    silence = [values[name].content for name in ("n_silent", "silence_most", "silence_ceiling")]
    assert silence == [2, 2, 1.0], "all are of one class"


def test_silence_is_counted_over_all_folds_that_are_tested(tmp_path: Path) -> None:
    """Each fold's fit gives its silent windows one answer: at best that of the commonest class among them."""
    plan = Plan(name="turned", epochs=1, experiments=({"model": "cnn", "protocol": "rotation"},))
    write_runs(RunStore(tmp_path), plan)
    found = gather(plan, tmp_path)
    tested = pd.concat([run.predictions.query("split == 'test'") for run in found.results[0].runs])
    silent = tested[tested["silent"]]
    most = sum(rows["y_true"].value_counts().iloc[0] for _, rows in silent.groupby("fold"))
    values = report_values(found)
    assert [values["n_silent"].content, values["silence_most"].content] == [len(silent), most]
    assert len(silent) > 2, "several folds have some"
    assert values["silence_ceiling"].content == pytest.approx(1 - (len(silent) - most) / len(tested))
    answers = found.results[0].answers
    assert values['confidence("cnn", "rotation", "clip")'].content == pytest.approx(answers.clips[0].max(1).mean())


def test_the_report_leads_with_a_complete_experiment_of_several_fits(found: Gathered) -> None:
    best = key_result(found.results)
    assert (best.architecture, len(best.runs)) == ("CNN", 4)
    assert report_values(found)["best_accuracy"].content == best.mean("clip")
