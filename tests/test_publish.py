"""Published results: whole run folders, every number of ``results.csv`` as the stored predictions have it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PROJECT_ROOT
from maintainer_tools import load_tool
from sklearn.metrics import f1_score, recall_score
from tiny import make_dataset

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import PUBLISHED_DIR
from audioclf_lib.data import Dataset, load_dataset
from audioclf_lib.data.windowing import cut_windows
from audioclf_lib.metrics import evaluate
from audioclf_lib.metrics.baselines import TITLES
from audioclf_lib.metrics.results import ExperimentResult
from audioclf_lib.metrics.scores import evaluate_all, rows_of_test
from audioclf_lib.report.card import CARD, model_card
from audioclf_lib.report.tables import ablation_table
from audioclf_lib.runs import RunStore, load_run
from audioclf_lib.runs.store import WEIGHTS, Run
from audioclf_lib.suite.ablation import AS_WRITTEN, HIGH_RATE, ablation_experiments, change_of
from audioclf_lib.suite.plan import Plan, load_plan, save_plan
from audioclf_lib.training import fit
from audioclf_lib.training.baselines import fit_baselines

PLAN = Plan(
    name="small",
    dataset="tiny",
    epochs=1,
    recipe_changes={"batch_size": 4},
    ablation={"epochs": 1},
    experiments=[
        {"model": "cnn", "protocol": "kfold"},
        {"model": "cnn", "protocol": "split"},
        {"model": "transformer", "num_heads": 2, "protocol": "split"},
        {"model": "cnn", "protocol": "split", "test_fold": 3},
    ],
)
README = "# Mine\n\n{start}\n\nold\n\n{end}\n\nMore.\n"


@pytest.fixture(scope="module")
def publish() -> ModuleType:
    return load_tool("publish")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return make_dataset(folds=3, clips_per_class=2)


@pytest.fixture(scope="module")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """All fits of the plan but its check, and one of its ablation."""
    store = RunStore(tmp_path_factory.mktemp("trained"))
    written = ablation_experiments(PLAN)[0].fits(dataset)
    for config in [*(each for experiment in PLAN.experiments_list() for each in experiment.fits(dataset)), *written]:
        fit(config, dataset, runs_dir=store.runs_dir, device="cpu")
    fit_baselines(dataset, runs_dir=store.runs_dir)
    return store


@pytest.fixture
def readme(publish: ModuleType, tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(README.format(start=publish.START, end=publish.END))
    return path


@pytest.fixture
def published(publish: ModuleType, trained: RunStore, readme: Path, tmp_path: Path) -> RunStore:
    publish.publish(PLAN, runs_dir=trained.runs_dir, to=tmp_path / "published", readme=readme)
    return RunStore(tmp_path / "published")


def best(runs: list[Run], model: str) -> Run:
    of_model = [run for run in runs if run.config.model == model and run.config.recipe == "tuned"]
    return max(of_model, key=lambda run: (run.metrics["chosen"]["accuracy"], -run.metrics["chosen"]["loss"]))


def test_run_folders_are_copied_whole_but_for_the_weights_of_all_but_the_best(
    trained: RunStore, published: RunStore
) -> None:
    runs = trained.find()
    assert [run.config for run in published.find()] == [run.config for run in runs]
    kept = {best(runs, model).config.fit_id for model in ("cnn", "transformer")}
    for run in runs:
        copy = published.load(run.config)
        copy.verify()
        left_out = set() if run.config.fit_id in kept else {WEIGHTS}
        card = {CARD} if run.config.fit_id in kept else set()
        names = {path.name for path in run.path.iterdir()}
        assert {path.name for path in copy.path.iterdir()} == names - left_out | card
        for name in names - left_out:
            assert (copy.path / name).read_bytes() == (run.path / name).read_bytes()
        assert not card or (copy.path / CARD).read_text(encoding="utf-8") == model_card(run)
    assert [path.name for path in published.runs_dir.glob("tiny/.*")] == [], "nothing is left of copying"


def test_every_number_of_the_table_follows_from_the_stored_predictions(
    published: RunStore, publish: ModuleType
) -> None:
    table = pd.read_csv(published.runs_dir / publish.RESULTS)
    assert table["fit"].tolist() == [run.config.fit_id for run in published.find()]
    for row in table.to_dict(orient="records"):
        run = load_run(row["fit"], published.runs_dir)
        config = run.config
        told = ("model", "val_fold", "test_fold", "seed", "epochs", "recipe")
        assert [row[name] for name in told] == [getattr(config, name) for name in told]
        assert row["title"] == config.model_title
        history = run.history.set_index("epoch")
        at_best = history[history["validation_accuracy"] == history["validation_accuracy"].max()]
        assert row["chosen_epoch"] == at_best["validation_loss"].idxmin()
        assert row["minutes"] == pytest.approx(run.history["seconds"].sum() / 60, abs=1e-3)
        assert row["device"] == "cpu"
        for split in ("train", "validation", "test"):
            rows = run.predictions[run.predictions["split"] == split]
            of_truth = rows[["p_0", "p_1", "p_2"]].to_numpy()[np.arange(len(rows)), rows["y_true"]]
            assert row[f"{split}_loss"] == pytest.approx(-np.log(of_truth).mean(), rel=1e-4)
            for level in ("window", "clip"):
                scores = evaluate(run.predictions, config.class_names, level=level, split=split)
                assert row[f"{split}_{level}_accuracy"] == pytest.approx(scores.accuracy)
                assert row[f"{split}_{level}_balanced_accuracy"] == pytest.approx(scores.balanced_accuracy)
                assert row[f"{split}_{level}_macro_f1"] == pytest.approx(scores.macro_f1)
                assert row[f"{split}_{level}_macro_auc"] == pytest.approx(scores.auc["macro"])


def test_baselines_are_published_with_their_answers(dataset: Dataset, published: RunStore, publish: ModuleType) -> None:
    answers = published.load_baselines(dataset)
    assert answers is not None
    table = pd.read_csv(published.runs_dir / publish.BASELINES)
    assert len(table) == 2 * 6, "two baselines, every pair of three folds"
    for row in table.to_dict(orient="records"):
        columns = ["baseline", "val_fold", "test_fold"]
        which = (answers[columns] == [row[name] for name in columns]).all(axis=1)
        rows = answers[which]
        right = rows[["p_0", "p_1", "p_2"]].to_numpy().argmax(1) == rows["y_true"]
        assert row["accuracy"] == pytest.approx(right.mean())


PUBLISHED = RunStore(PUBLISHED_DIR).find() if PUBLISHED_DIR.is_dir() else []


@pytest.mark.skipif(not PUBLISHED, reason="nothing is published")
def test_every_number_in_report_published_follows_from_the_predictions_stored_there(publish: ModuleType) -> None:
    """Of each fit the numbers in its own folder and its row of the table; README's table is made of the rows."""
    table = pd.read_csv(PUBLISHED_DIR / publish.RESULTS).set_index("fit")
    assert sorted(table.index) == sorted(run.config.fit_id for run in PUBLISHED)
    for run in PUBLISHED:
        run.verify()
        recomputed = evaluate_all(run.predictions, run.config.class_names)
        assert run.metrics["scores"] == recomputed
        row, history = table.loc[run.config.fit_id], run.history
        best = history[history["validation_accuracy"] == history["validation_accuracy"].max()]
        assert row["chosen_epoch"] == best.set_index("epoch")["validation_loss"].idxmin()
        for split in recomputed:
            rows = run.predictions.query("split == @split")
            of_truth = rows.filter(regex=r"^p_\d+$").to_numpy()[np.arange(len(rows)), rows["y_true"]]
            assert row[f"{split}_loss"] == pytest.approx(-np.log(of_truth).mean(), rel=1e-4)
        for split, levels in recomputed.items():
            for level, scores in levels.items():
                assert row[f"{split}_{level}_accuracy"] == pytest.approx(scores["accuracy"])
                assert row[f"{split}_{level}_balanced_accuracy"] == pytest.approx(scores["balanced_accuracy"])
                assert row[f"{split}_{level}_macro_f1"] == pytest.approx(scores["macro_f1"])
                assert row[f"{split}_{level}_macro_auc"] == pytest.approx(scores["auc"]["macro"])
    readme = PROJECT_ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    plan = load_plan(PUBLISHED_DIR / "plan.yaml")
    assert str(PROJECT_ROOT) not in (PUBLISHED_DIR / "plan.yaml").read_text(encoding="utf-8")
    dataset = PUBLISHED[0].config.known_dataset
    baselines = pd.read_csv(PUBLISHED_DIR / publish.BASELINES) if (PUBLISHED_DIR / publish.BASELINES).exists() else None
    markdown = publish.results_markdown(table.reset_index(), baselines, plan.experiments_list(), dataset)
    assert markdown in before


@pytest.mark.skipif(not PUBLISHED, reason="nothing is published")
def test_what_the_published_text_says_of_the_ablation_follows_from_the_stored_predictions(real_esc10: Path) -> None:
    """One answer to every test window at a rate of 0.01, and which changes all seeds and architectures agree on."""
    dataset = load_dataset("esc10", with_folds=[1])
    experiments = ablation_experiments(load_plan(str(PUBLISHED_DIR / "plan.yaml")), "cpu", PUBLISHED_DIR)
    results = []
    for experiment in experiments:
        run = load_run(PUBLISHED_DIR / "esc10" / experiment.fits(dataset)[0].fit_id)
        results.append(ExperimentResult(experiment, (run,), mark=change_of(experiment)))
    for result in results:
        answers = rows_of_test(result.best).filter(regex=r"^p_\d+$").to_numpy().argmax(axis=1)
        assert (len(set(answers)) == 1) == (result.mark == HIGH_RATE), result.title
    table = ablation_table(results)
    agreed = table.pivot(index="Change", columns="Architecture", values="Against as written")
    assert agreed.index[(agreed == "higher").all(axis=1)].tolist() == ["all of these"]
    single = agreed.drop(index=[AS_WRITTEN, HIGH_RATE, "all of these"])
    assert single.size == 10
    assert (single == "seeds differ").to_numpy().sum() == 6


@pytest.mark.skipif(not PUBLISHED, reason="nothing is published")
def test_the_published_baselines_follow_from_their_stored_answers(publish: ModuleType) -> None:
    answers = RunStore(PUBLISHED_DIR).load_baselines(PUBLISHED[0].config.known_dataset)
    assert answers is not None
    table = pd.read_csv(PUBLISHED_DIR / publish.BASELINES).set_index(["baseline", "val_fold", "test_fold"])
    assert len(table) == len(TITLES) * 20, "every pair of five folds"
    for key, rows in answers.groupby(["baseline", "val_fold", "test_fold"]):
        given = rows.filter(regex=r"^p_\d+$").to_numpy().argmax(1)
        assert table.loc[key, "accuracy"] == pytest.approx((given == rows["y_true"]).mean())
        scores = [each(rows["y_true"], given, average="macro", zero_division=0) for each in (recall_score, f1_score)]
        assert table.loc[key, ["balanced_accuracy", "macro_f1"]].tolist() == pytest.approx(scores)


@pytest.mark.parametrize("run", [run for run in PUBLISHED if run.has_weights], ids=lambda run: run.config.model)
def test_published_models_give_the_published_probabilities_on_the_recordings(run: Run, real_esc10: Path) -> None:
    data, rows = load_dataset(real_esc10), run.predictions.query("split == 'test'").iloc[::15]
    clips = [data.clip_ids.index(name) for name in rows["clip_id"]]
    windows = cut_windows(data.waveforms[clips])[range(len(rows)), rows["window_index"].tolist()]
    with torch.no_grad():
        given = load_run(run.config.fit_id, PUBLISHED_DIR).model()(windows).softmax(1).numpy()
    np.testing.assert_allclose(given, rows.filter(regex=r"^p_\d+$").to_numpy(), atol=1e-4)


def test_published_weights_reproduce_the_published_probabilities(dataset: Dataset, published: RunStore) -> None:
    windows, found = cut_windows(dataset.waveforms.copy()), []
    for run in published.find():
        if not run.has_weights:
            continue
        loaded = load_run(run.config.fit_id, published.runs_dir)
        rows = [dataset.clip_ids.index(name) for name in loaded.predictions["clip_id"]]
        with torch.no_grad():
            given = loaded.model()(windows[rows, loaded.predictions["window_index"].tolist()]).softmax(1).numpy()
        np.testing.assert_allclose(given, loaded.predictions[["p_0", "p_1", "p_2"]].to_numpy(), atol=1e-5)
        found.append(run.config.model)
    assert sorted(found) == ["cnn", "transformer"]


def test_readme_has_a_row_for_each_complete_experiment_but_for_part_of_another_and_names_the_others(
    published: RunStore, publish: ModuleType, readme: Path
) -> None:
    text = readme.read_text()
    assert text.startswith("# Mine\n") and text.endswith(f"{publish.END}\n\nMore.\n") and "\nold\n" not in text
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")][
        1:
    ]
    baselines = [f"{title}, rotation" for title in TITLES.values()]
    assert [row[0] for row in cells] == [
        "CNN, k-fold, batch size 4",
        "Transformer, 2 heads, split, batch size 4",
        *baselines,
    ]
    assert [row[1] for row in cells] == ["2", "1", "3", "3"]
    (transformer,) = published.find(model="transformer")
    scores = transformer.metrics["scores"]["test"]
    assert cells[1][2:] == [f"{100 * scores[level]['accuracy']:.1f} %" for level in ("window", "clip")]
    assert "\nNot complete yet: CNN, split, test fold 3, batch size 4 (0 of 1 fits).\n" in text


def test_what_was_published_stays_and_a_second_call_changes_nothing(
    publish: ModuleType, trained: RunStore, published: RunStore, tmp_path: Path
) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in published.runs_dir.rglob("*") if path.is_file()}

    before = content()
    publish.publish(PLAN, runs_dir=trained.runs_dir, to=published.runs_dir)
    assert content() == before
    publish.publish(PLAN, runs_dir=tmp_path / "nothing", to=published.runs_dir)
    assert content() == before


def test_weights_are_left_out_on_demand_and_come_later(
    publish: ModuleType, trained: RunStore, readme: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_plan(PLAN, tmp_path / "small.yaml")
    assert load_plan(tmp_path / "small.yaml").experiments == PLAN.experiments
    store = RunStore(tmp_path / "published")
    options = ["--plan", str(tmp_path / "small.yaml"), "--runs-dir", str(trained.runs_dir), "--readme", str(readme)]
    for more, number in (["--no-weights"], 0), ([], 2):
        publish.main([*options, "--to", str(store.runs_dir), *more])
        assert sum(run.has_weights for run in store.find()) == number
    assert f"{len(trained.find())} fits are published in {store.runs_dir}" in capsys.readouterr().out


def test_without_fits_nothing_is_written(publish: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no fit on tiny; train some"):
        publish.publish(PLAN, runs_dir=tmp_path / "runs", to=tmp_path / "published")
    assert list(tmp_path.iterdir()) == []
