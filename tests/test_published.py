"""Published results: scores that follow from the predictions, only a plan's fits, weights of the best two, README."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call
from conftest import PROJECT_ROOT
from pypdf import PdfReader
from shown import outputs_of
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score, roc_auc_score
from synthetic import DEMO, SPLITS, write_run

from audioclf_lib.config import PUBLISHED_DIR, FitConfig
from audioclf_lib.datasets import dataset_name, load_dataset
from audioclf_lib.errors import InputError
from audioclf_lib.evaluation import best_fit
from audioclf_lib.plan import Plan, load_plan
from audioclf_lib.publication import (
    END,
    RESULTS,
    START,
    Publication,
    best_fits,
    planned_fits,
    publish,
    read_results,
    refresh_readme,
    results_markdown,
)
from audioclf_lib.reporting import sections
from audioclf_lib.reporting.phrases import NBSP
from audioclf_lib.reporting.results import gather, known_dataset
from audioclf_lib.store import PREDICTIONS, WEIGHTS, Run, RunStore
from audioclf_lib.training import fresh_model, score_windows, windows_by_split

FULL = load_plan("full")


# -------------------------------------------------------------------------------------- scores by other code than ours


def clip_means(rows: pd.DataFrame, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Label and mean probabilities of every clip; silent windows have a vote only where there is no other."""
    labels, means = [], []
    for _, clip in rows.sort_values("window_index").groupby("clip_id"):
        heard = ~clip["silent"].to_numpy()
        votes = heard if heard.any() else ~heard
        windows = clip[[f"p_{label}" for label in range(n_classes)]].to_numpy(np.float64)
        means.append(windows[votes].mean(axis=0))
        labels.append(clip["y_true"].iloc[0])
    return np.array(labels), np.array(means)


def expected_scores(rows: pd.DataFrame, class_names: tuple[str, ...], level: str) -> dict[str, Any]:
    """What ``metrics.json`` must say of one split, from its predictions."""
    n_classes = len(class_names)
    if level == "clip":
        y_true, p = clip_means(rows, n_classes)
    else:
        y_true, p = rows["y_true"].to_numpy(), rows[[f"p_{i}" for i in range(n_classes)]].to_numpy(np.float64)
    answers = p.argmax(axis=1)
    is_class = (y_true[:, None] == np.arange(n_classes)).astype(int)
    each: dict[str, Any] = {"labels": range(n_classes), "average": None, "zero_division": 0}
    areas = [roc_auc_score(is_class[:, label], p[:, label]) for label in range(n_classes)]
    per_class = {
        "precision": precision_score(y_true, answers, **each),
        "recall": recall_score(y_true, answers, **each),
        "f1": f1_score(y_true, answers, **each),
        "support": is_class.sum(axis=0),
        "auc": areas,
    }
    expected = {
        "n": len(y_true),
        "accuracy": accuracy_score(y_true, answers),
        "macro_f1": f1_score(y_true, answers, **(each | {"average": "macro"})),
        "auc": dict(zip(class_names, areas, strict=True))
        | {"micro": roc_auc_score(is_class.ravel(), p.ravel()), "macro": np.mean(areas)},
        "per_class": {
            name: {score: values[label] for score, values in per_class.items()}
            for label, name in enumerate(class_names)
        },
        "confusion": confusion_matrix(y_true, answers, labels=range(n_classes)).tolist(),
    }
    heard = ~rows["silent"].to_numpy()
    if level == "window" and heard.any():
        expected["accuracy_without_silence"] = accuracy_score(y_true[heard], answers[heard])
    return expected


def differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """Where two trees of numbers differ by more than rounding."""
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            return [f"{path}: {found} instead of {expected}"]
        return [line for key in expected for line in differences(found[key], expected[key], f"{path}/{key}")]
    if isinstance(expected, list):
        return [] if found == expected else [f"{path}: {found} instead of {expected}"]
    return [] if abs(found - expected) <= 1e-12 else [f"{path}: {found} instead of {expected}"]


def wrong_scores(run: Run, results: pd.DataFrame) -> list[str]:
    """What a published run and its row in ``results.csv`` say that does not follow from its predictions."""
    predictions, names = run.predictions, run.config.class_names
    expected = {
        split: {level: expected_scores(rows, names, level) for level in ("window", "clip")}
        for split in SPLITS
        if len(rows := predictions[predictions["split"] == split])
    }
    wrong = differences(run.metrics["scores"], expected, run.config.fit_id)
    (row,) = results[results["fit"] == run.config.fit_id].to_dict(orient="records")
    for split in ("validation", "test"):
        for level, scores in expected.get(split, {}).items():
            columns = {
                name: scores[name] for name in ("accuracy", "accuracy_without_silence", "macro_f1") if name in scores
            }
            columns["macro_auc"] = scores["auc"]["macro"]
            for name, value in columns.items():
                column = f"{split}_{level}_{name}"
                wrong += differences(row[column], value, f"{RESULTS}/{run.config.fit_id}/{column}")
    return wrong


# ------------------------------------------------------------------------------------------------- what is published


@pytest.fixture(scope="module")
def published() -> list[Run]:
    return RunStore(PUBLISHED_DIR).find()


def test_every_published_score_follows_from_its_predictions(published: list[Run]) -> None:
    results = read_results(PUBLISHED_DIR)
    assert [line for run in published for line in wrong_scores(run, results)] == []


def test_results_have_one_row_for_each_published_fit(published: list[Run]) -> None:
    results = read_results(PUBLISHED_DIR)
    assert list(results["fit"]) == [run.config.fit_id for run in published]


def test_published_folders_are_named_by_their_content_and_are_all_that_the_plan_asks_for(published: list[Run]) -> None:
    assert [run.path.name for run in published] == [run.config.fit_id for run in published]
    known = known_dataset(RunStore(PUBLISHED_DIR), dataset_name(FULL.dataset))
    assert known is not None
    assert {run.path.name for run in published} == {fit.fit_id for fit in planned_fits(FULL, known)}


def test_published_weights_are_those_of_the_best_two_fits(published: list[Run]) -> None:
    store = RunStore(PUBLISHED_DIR)
    known = known_dataset(store, dataset_name(FULL.dataset))
    assert known is not None
    best = {run.config.fit_id for run in best_fits(FULL, known, store)}
    assert {run.config.fit_id for run in published if run.has_weights} == best


def test_published_weights_give_the_published_predictions(
    published: list[Run], real_esc10: Path, tmp_path: Path
) -> None:
    """By the readable modules on a CPU, wherever the fit was trained: a GPU convolves with shorter mantissas."""
    dataset, cpu = load_dataset(real_esc10, data_dir=tmp_path), torch.device("cpu")
    for run in (run for run in published if run.has_weights):
        model = fresh_model(run.config, cpu)
        model.load_state_dict(run.weights())
        windows = windows_by_split(run.config, dataset, cpu)["test"]
        scored = score_windows(model, windows, run.config.recipe_settings, len(run.config.class_names))
        expected = run.predictions.query("split == 'test'")
        clips = [dataset.clip_ids[clip] for clip in windows.clips]
        assert list(expected["clip_id"]) == clips
        assert list(expected["window_index"]) == windows.window_index.tolist()
        probabilities = expected[[f"p_{label}" for label in range(len(run.config.class_names))]].to_numpy()
        np.testing.assert_allclose(scored.probabilities.numpy(), probabilities, atol=2e-3)


def test_the_readme_shows_what_is_published() -> None:
    text = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    known = known_dataset(RunStore(PUBLISHED_DIR), dataset_name(FULL.dataset))
    shown = text.partition(START)[2].partition(END)[0].strip()
    assert shown == results_markdown(read_results(PUBLISHED_DIR), FULL, known)


def test_the_published_report_shows_the_published_scores(published: list[Run]) -> None:
    text = " ".join(page.extract_text() for page in PdfReader(PUBLISHED_DIR / "report.pdf").pages)
    text = " ".join(text.replace(NBSP, " ").split())
    for result in gather(FULL, PUBLISHED_DIR):
        for level in ("window", "clip"):
            for value in result.values(level) if result.runs else []:
                assert f"{100 * value:.1f} %" in text, f"{result.title}; make the report anew"


def test_of_the_published_folder_only_results_are_in_git() -> None:
    kept = ["results.csv", "trials.csv", "plan.yaml", "report.pdf", "esc10/cnn-val2/weights.safetensors"]
    scratch = ["report.html", "report.ipynb", "report.failed.ipynb", "report.status.json", ".report.lock"]
    scratch += [".suite/suite.log", "esc10/notebooks/x.ipynb", "esc10/.cnn.partial/checkpoint.pt", "esc10/.cnn.lock"]
    scratch += ["esc10/.cnn.draft/config.json", "esc10/cnn-val2/.weights.safetensors.0123"]
    command = ["git", "-C", str(PROJECT_ROOT), "check-ignore", "--no-index"]
    names = [f"report/published/{name}" for name in [*kept, *scratch]]
    process = subprocess.run([*command, *names], capture_output=True, text=True)
    if process.returncode not in (0, 1):
        pytest.skip("not a git checkout")
    assert process.stdout.split() == [f"report/published/{name}" for name in scratch]


# ----------------------------------------------------------------------------------------------------------- publish

PLAN = Plan(
    name="small",
    epochs=3,
    experiments=(
        {"model": "cnn", "protocol": "kfold"},
        {"model": "cnn", "protocol": "split"},
        {"model": "transformer", "num_heads": 2, "protocol": "split"},
        {"model": "transformer", "num_heads": 4, "protocol": "split"},
    ),
    checks=({"model": "cnn", "protocol": "split", "test_fold": 3},),
)
SOUNDS = replace(DEMO, class_names=DEMO.class_names[:3])
CNN, HEADS_2, HEADS_4 = (PLAN.experiments_list()[index].fits(SOUNDS) for index in (0, 2, 3))
(CHECK,) = PLAN.checks_list()[0].fits(SOUNDS)
EVERYTHING = [fit.fit_id for fit in planned_fits(PLAN, SOUNDS)]


class Bench:
    """A runs directory where fits are trained, and the folder where they are published."""

    def __init__(self, folder: Path) -> None:
        self.runs, self.target = RunStore(folder / "runs"), RunStore(folder / "published")

    def train(self, config: FitConfig, validation: float = 0.5) -> Run:
        """A finished fit with this validation accuracy."""
        return write_run(self.runs, config, validation_accuracy=validation)

    def train_everything(self) -> None:
        for position, fit in enumerate(planned_fits(PLAN, SOUNDS)):
            self.train(fit, 0.3 + 0.05 * position)

    def publish(self, plan: Plan = PLAN, **options: Any) -> Publication:
        return publish(plan, runs_dir=self.runs.runs_dir, to=self.target.runs_dir, **options)

    def published(self) -> list[str]:
        return [run.path.name for run in self.target.find()]

    def with_weights(self) -> list[str]:
        return [path.parent.name for path in sorted(self.target.runs_dir.rglob(WEIGHTS))]

    def files(self) -> dict[str, bytes]:
        folder = self.target.runs_dir
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_experiments_and_checks_are_published_and_their_scores_follow_from_the_predictions(bench: Bench) -> None:
    bench.train_everything()
    done = bench.publish()
    assert done.added == done.published == tuple(EVERYTHING)
    assert len(EVERYTHING) == 7, "four CNNs, one of them the split's, two Transformers, the check"
    assert done.missing == ()
    assert sorted(bench.published()) == sorted(EVERYTHING)
    results = read_results(bench.target.runs_dir)
    assert list(results["fit"]) == bench.published()
    assert [line for run in bench.target.find() for line in wrong_scores(run, results)] == []
    assert load_plan(bench.target.runs_dir / "plan.yaml") == PLAN


@pytest.mark.parametrize("damage", ["metrics", "results"])
def test_a_score_that_does_not_follow_is_found(bench: Bench, damage: str) -> None:
    run = bench.train(CNN[0])
    bench.publish()
    (run,) = bench.target.find()
    results = read_results(bench.target.runs_dir)
    if damage == "metrics":
        run.metrics["scores"]["test"]["clip"]["auc"]["micro"] += 1e-9
    else:
        results.loc[0, "test_window_accuracy_without_silence"] += 1e-9
    (told,) = wrong_scores(run, results)
    assert "micro" in told or "without_silence" in told


def test_the_results_say_what_each_fit_is(bench: Bench) -> None:
    bench.train_everything()
    bench.publish()
    results = read_results(bench.target.runs_dir).set_index("fit")
    check, transformer = results.loc[CHECK.fit_id], results.loc[HEADS_4[0].fit_id]
    assert (check["model"], check["test_fold"], check["val_fold"], check["recipe"]) == ("cnn", 3, 4, "tuned")
    assert pd.isna(check["num_heads"])
    assert (transformer["model"], transformer["num_heads"], transformer["epochs"]) == ("transformer", 4, 3)
    assert (transformer["seed"], transformer["chosen_epoch"]) == (0, 3)
    assert (transformer["minutes"], transformer["device"]) == (12 / 60, "cpu")


def test_publishing_again_changes_no_byte(bench: Bench) -> None:
    bench.train_everything()
    bench.publish()
    before = bench.files()
    again = bench.publish()
    assert again.added == ()
    assert again.published == tuple(EVERYTHING)
    assert bench.files() == before


def test_fits_are_added_as_they_finish_and_those_that_are_missing_are_named(bench: Bench) -> None:
    for number, fit in enumerate(planned_fits(PLAN, SOUNDS), start=1):
        bench.train(fit)
        done = bench.publish()
        assert done.added == (fit.fit_id,)
        assert done.published == tuple(EVERYTHING[:number])
        assert done.missing == tuple(EVERYTHING[number:])
        assert sorted(read_results(bench.target.runs_dir)["fit"]) == sorted(EVERYTHING[:number])


def test_what_is_published_stays_when_the_runs_directory_no_longer_holds_it(bench: Bench) -> None:
    bench.train(CNN[0])
    bench.publish()
    shutil.rmtree(bench.runs.runs_dir)
    bench.train(CNN[1])
    done = bench.publish()
    assert done.published == (CNN[0].fit_id, CNN[1].fit_id)
    assert len(read_results(bench.target.runs_dir)) == 2


def test_a_published_fit_is_not_replaced_by_another_training_of_it(bench: Bench) -> None:
    bench.train(CNN[0])
    bench.publish(weights=False)
    before = bench.files()
    shutil.rmtree(bench.runs.runs_dir)
    write_run(bench.runs, CNN[0], skill=0.9)
    done = bench.publish()
    assert bench.files() == before
    assert done.weights_lost == (CNN[0].fit_id,), "those of the other training would not fit the predictions"


def test_weights_are_those_of_the_best_cnn_and_the_best_transformer_in_validation(bench: Bench) -> None:
    for position, fit in enumerate(CNN):
        bench.train(fit, [0.5, 0.7, 0.6, 0.4][position])
    bench.train(HEADS_2[0], 0.5)
    bench.train(HEADS_4[0], 0.6)
    bench.train(CHECK, 0.9)
    done = bench.publish()
    assert best_fit([run for run in bench.runs.find() if run.config.test_fold == 1]).config == CNN[1]
    expected = [CNN[1].fit_id, HEADS_4[0].fit_id]
    assert bench.with_weights() == list(done.weights) == expected, "a check's fit is none of the eight experiments'"


def test_weights_move_when_a_better_fit_arrives(bench: Bench) -> None:
    bench.train(CNN[0], 0.5)
    bench.publish()
    assert bench.with_weights() == [CNN[0].fit_id]
    bench.train(CNN[1], 0.4)
    bench.publish()
    assert bench.with_weights() == [CNN[0].fit_id]
    bench.train(CNN[2], 0.6)
    shutil.rmtree(bench.runs.path(CNN[0]))
    bench.publish()
    assert bench.with_weights() == [CNN[2].fit_id]
    assert bench.published() == [fit.fit_id for fit in CNN[:3]]


def test_weights_may_be_left_for_the_last_time(bench: Bench) -> None:
    bench.train_everything()
    done = bench.publish(weights=False)
    assert (bench.with_weights(), done.weights, done.weights_lost) == ([], (), ())
    bench.publish()
    assert len(bench.with_weights()) == 2
    bench.publish(weights=False)
    assert len(bench.with_weights()) == 2


def test_fits_of_other_plans_and_strangers_folders_are_kept_out(bench: Bench) -> None:
    bench.train(CNN[0])
    for other in (PLAN.changed(epochs=4), PLAN.changed(seeds=(1,)), PLAN.changed(recipe="as-written")):
        bench.train(other.experiments_list()[0].fits(SOUNDS)[0])
    write_run(bench.runs, PLAN.experiments_list()[0].fits(replace(SOUNDS, name="my-sounds"))[0])
    (bench.runs.runs_dir / "demo" / "notebooks").mkdir()
    (bench.runs.path(CNN[0]) / "notes.txt").write_text("mine")
    bench.runs.save_checkpoint(CNN[1], {"epoch": 1})
    bench.publish()
    names = {path.split("/", 1)[1] for path in bench.files() if path.startswith("demo/")}
    assert {name.split("/")[0] for name in names} == {CNN[0].fit_id}
    assert "notes.txt" not in {name.split("/")[1] for name in names}
    assert {path for path in bench.files() if "/" not in path} == {"results.csv", "plan.yaml"}


def test_another_version_of_the_data_set_is_refused(bench: Bench) -> None:
    bench.train(CNN[0])
    bench.publish()
    shutil.rmtree(bench.runs.runs_dir)
    bench.train(PLAN.experiments_list()[0].fits(replace(SOUNDS, fingerprint="fedcba9876543210"))[0])
    with pytest.raises(InputError, match=r"another version of data set demo .* publish them to another folder"):
        bench.publish()
    assert bench.published() == [CNN[0].fit_id]


def test_a_damaged_run_is_refused_and_leaves_nothing_behind(bench: Bench) -> None:
    (bench.train(CNN[0]).path / PREDICTIONS).unlink()
    with pytest.raises(InputError, match=r"predictions.parquet is missing; restore it, or have"):
        bench.publish()
    assert bench.files() == {}


def test_a_full_disk_leaves_no_half_a_fit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.train(CNN[0])
    copied: list[Path] = []

    def copy(source: Path, target: Path) -> None:
        if len(copied) == 3:
            raise OSError(28, "No space left on device")
        copied.append(target)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(InputError, match="No space left on device; free space"):
        bench.publish()
    assert bench.files() == {}


def test_before_the_first_fit_nothing_is_written(bench: Bench) -> None:
    done = bench.publish()
    assert (done.added, done.published, done.missing) == ((), (), None)
    assert not bench.target.runs_dir.exists()


def test_runs_may_be_published_where_they_were_trained(bench: Bench) -> None:
    bench.train_everything()
    publish(PLAN, runs_dir=bench.runs.runs_dir, to=bench.runs.runs_dir)
    assert len(bench.runs.find()) == len(EVERYTHING)
    assert len(list(bench.runs.runs_dir.rglob(WEIGHTS))) == 2, "all others gave theirs away"


# ------------------------------------------------------------------------------------------------------------- README

README = f"# Title\n\nBefore.\n\n{START}\n\nNo fit has been published yet.\n\n{END}\n\nAfter.\n"


def table_of(text: str) -> dict[str, list[str]]:
    """Cells of a Markdown table by the first of each row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row[0]: row[1:] for row in rows}


def test_the_readmes_table_has_a_row_for_each_experiment_and_check(bench: Bench, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(README)
    for fit in (*CNN, HEADS_4[0], CHECK):
        bench.train(fit)
    assert bench.publish(readme=readme).readme
    text = readme.read_text()
    assert text.startswith(f"# Title\n\nBefore.\n\n{START}\n\nAccuracy on test fold 1 of the demo set")
    assert text.endswith(f"\n\n{END}\n\nAfter.\n")
    assert "recipe `tuned`, 3 epochs, seed 0." in text
    rows = table_of(text)
    assert list(rows) == [
        "CNN, k-fold",
        "CNN, split",
        "Transformer, 2 heads, split",
        "Transformer, 4 heads, split",
        "CNN, split, test fold 3",
    ]
    values = [
        run.metrics["scores"]["test"]["window"]["accuracy"] for run in bench.target.find(test_fold=1, model="cnn")
    ]
    kfold = f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f} %"
    assert rows["CNN, k-fold"][:2] == ["4", kfold]
    assert rows["Transformer, 2 heads, split"] == ["0 of 1 fit", "–", "–", "–"]
    assert rows["CNN, split, test fold 3"][0] == "1"
    before = text
    bench.publish(readme=readme)
    assert readme.read_text() == before


def test_an_incomplete_experiment_says_how_many_of_its_fits_are_there(bench: Bench) -> None:
    bench.train(CNN[2])
    bench.publish()
    rows = table_of(results_markdown(read_results(bench.target.runs_dir), PLAN, SOUNDS))
    assert rows["CNN, k-fold"][0] == "1 of 4 fits"
    assert "±" not in rows["CNN, k-fold"][1], "one fit has no deviation"
    assert rows["CNN, split"][0] == "0 of 1 fit"


def test_the_originals_accuracies_stand_beside_those_of_its_data_set_and_test_fold(bench: Bench) -> None:
    esc10 = replace(SOUNDS, name="esc10")
    plan = PLAN.changed(dataset="esc10")
    results = read_results(bench.target.runs_dir)
    originals = [row[-1] for row in table_of(results_markdown(results, plan, esc10)).values()]
    assert originals == ["42.4 %", "9.2 %", "–", "–", "–"]
    assert {row[-1] for row in table_of(results_markdown(results, PLAN, SOUNDS)).values()} == {"–"}


@pytest.mark.parametrize("text", [None, "# No markers\n", f"{START}\n"])
def test_a_readme_without_markers_is_left_alone(tmp_path: Path, text: str | None) -> None:
    readme = tmp_path / "README.md"
    if text is not None:
        readme.write_text(text)
    assert not refresh_readme(readme, "table")
    assert [path.read_text() for path in tmp_path.iterdir()] == [text] * (text is not None)


# ------------------------------------------------------------------------------------------- the command, and after it


def test_the_command_says_what_is_published(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load_plan("demo")
    fit = plan.experiments_list()[1].fits(DEMO)[0]
    readme = (PROJECT_ROOT / "README.md").read_bytes()
    arguments = ["publish", "--plan", "demo", "--runs-dir", bench.runs.runs_dir, "--to", bench.target.runs_dir]
    assert call(monkeypatch, *arguments) == 0
    assert "no fit of plan demo has been trained" in capsys.readouterr().out
    bench.train(fit)
    assert call(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    assert f"published: {fit.fit_id}" in shown
    assert f"1 of {len(planned_fits(plan, DEMO))} fits are in" in shown
    assert f"with weights: {fit.fit_id}" in shown
    assert (PROJECT_ROOT / "README.md").read_bytes() == readme, "it shows report/published alone"


def test_a_figure_that_needs_weights_gives_way_to_a_sentence(bench: Bench) -> None:
    bench.train(HEADS_4[0])
    bench.publish(weights=False)
    result = gather(PLAN, bench.target.runs_dir)[3]
    outputs = outputs_of(lambda: sections.show_attention(result, None))  # type: ignore[arg-type]
    (text,) = (output.data["text/markdown"] for output in outputs)
    assert "The attention is not shown" in text
    assert "train the fit in another runs" in text.replace("\\", "")
