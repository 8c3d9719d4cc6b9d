"""The report's tables hold what the run folders say, computed here a second time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import DEMO, write_run

from audioclf_lib.config import Experiment, Recipe
from audioclf_lib.metrics.results import ExperimentResult
from audioclf_lib.metrics.uncertainty import Contrast, Interval
from audioclf_lib.models import create_model
from audioclf_lib.models.derivation import derive_layers
from audioclf_lib.report import tables
from audioclf_lib.report.gather import Gathered
from audioclf_lib.report.show import Markdown
from audioclf_lib.runs.store import RunStore

NBSP = "\N{NO-BREAK SPACE}"
ESC10 = replace(DEMO, name="esc10")


def result_of(folder: Path, dataset: object = DEMO, **settings: object) -> ExperimentResult:
    experiment = Experiment(**{"model": "cnn", "epochs": 2} | settings)
    runs = [write_run(RunStore(folder), config, clips_per_class=2) for config in experiment.fits(dataset)]
    return ExperimentResult(experiment, tuple(runs))


@pytest.fixture(scope="module")
def kfold(tmp_path_factory: pytest.TempPathFactory) -> ExperimentResult:
    return result_of(tmp_path_factory.mktemp("runs"))


def test_shares_are_written_with_spread_and_interval() -> None:
    assert tables.percent(0.6113) == f"61.1{NBSP}%"
    shown = tables.percent(0.6113, 0.0234, Interval(0.55, 0.669))
    assert shown.replace(NBSP, " ") == "61.1 ± 2.3 % (55.0 to 66.9)"


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.0462, "0.046"), (0.05, "0.050"), (0.5, "0.50"), (1.0, "1.0"), (0.0012, "0.0012"), (1e-5, "<0.001")],
)
def test_p_has_two_significant_digits(p: float, shown: str) -> None:
    assert tables.p_value(p) == shown


def test_accuracy_is_the_diagonal_over_the_sum(kfold: ExperimentResult) -> None:
    scores = kfold.scores("clip")
    latex = tables.accuracy_latex(scores)
    terms = latex.split("frac{")[1].split("}")[0].split(" + ")
    assert list(map(int, terms)) == np.diag(scores.confusion).tolist()
    assert rf"\frac{{{scores.n_correct}}}{{{scores.n}}} = {scores.accuracy:.4f}" in latex


def test_data_are_counted_by_class(kfold: ExperimentResult) -> None:
    run = kfold.best
    table = tables.data_table(run)
    assert list(table.index) == list(DEMO.class_names)
    assert table.loc["fire crackling"].to_dict() == {
        "Clips": 10,
        "Recordings": 10,
        "Windows": 90,
        "Silent windows": 20,
    }
    assert table["Silent windows"].sum() == 20


def test_the_recipe_lists_what_is_in_use_and_nothing_else() -> None:
    as_written = tables.recipe_table(Experiment(model="cnn", recipe="as-written").recipe_settings)
    assert as_written.iloc[0].tolist()[:2] == ["dropout", "0.5"]
    assert as_written["Setting"].tolist() == ["dropout", "optimizer", "learning rate", "batch size", "schedule"]
    recipes = {name: Experiment(model=name.lower()).recipe_settings for name in ("CNN", "Transformer")}
    both = tables.recipe_table(recipes).set_index("Setting")
    assert both.loc["encoder lr scale", ["CNN", "Transformer"]].tolist() == [None, "0.1"]
    assert both.loc["drop silent", "CNN"] == "yes"
    assert "label smoothing" not in both.index
    assert both.loc["dropout", "What it does"] == Recipe.model_fields["dropout"].description


def test_scores_stand_side_by_side(kfold: ExperimentResult) -> None:
    missing = ExperimentResult(Experiment(model="transformer", protocol="split"), ())
    table = tables.scores_table([kfold, missing])
    first = table.iloc[0]
    assert first["Clips"] == tables.percent(kfold.mean("clip"), kfold.std("clip"), kfold.intervals["clip"])
    assert first["Macro F1"] == pytest.approx(np.mean(kfold.values("clip", "macro_f1")))
    assert first["ECE"] == kfold.clip_calibration.ece
    assert table.iloc[1][["Experiment", "Fits", "Clips"]].tolist() == ["Transformer, 1 head, split", "0", "missing"]


def test_only_what_has_a_section_is_linked(kfold: ExperimentResult) -> None:
    assert tables.scores_table([kfold])["Shown in"].tolist() == [None]
    assert tables.scores_table([kfold], {"cnn-kfold"})["Shown in"].tolist() == [Markdown("[@sec:cnn-kfold]")]


def test_the_split_is_a_row_of_the_k_fold(kfold: ExperimentResult) -> None:
    split = ExperimentResult(kfold.experiment.changed(protocol="split"), kfold.runs[:1])
    table = tables.fits_table([kfold, split])
    assert table["Fit"].tolist() == [
        "k-fold, validation fold 2 (the split)",
        *(f"k-fold, validation fold {fold}" for fold in (3, 4, 5)),
        "k-fold, mean",
        "k-fold, deviation",
    ]
    expected = [run.metrics["scores"]["train"]["clip"]["accuracy"] for run in kfold.runs]
    assert table["Training"].tolist()[:4] == expected
    assert tables.fits_table([split])["Fit"].tolist() == ["split, validation fold 2"]


def test_layers_are_derived_once_and_their_parameters_add_up() -> None:
    layers = {name: derive_layers(create_model(name)) for name in ("cnn", "transformer")}
    shown = {"cnn": (), "transformer": layers["cnn"]}
    derived = {name: tables.layers_table(layers[name], shown[name]) for name in layers}
    for name, total in {"cnn": 128_682, "transformer": 2_607_778}.items():
        assert derived[name]["Parameters"].iloc[:-1].sum() == derived[name]["Parameters"].iloc[-1] == total
    assert derived["cnn"]["Layer"][0] == "conv1"
    assert derived["transformer"]["Layer"].tolist()[:2] == ["first 12 steps", "cls_token"]
    (conv,) = tables.layers_table(layers["cnn"]).query("Layer == 'conv2'")["Derivation"]
    assert "5 \\cdot 128 \\cdot 64 + 64" in conv.text and r"\lfloor" in conv.text
    assert "as encoder layer 1" in derived["transformer"]["Type"].tolist()


def contrast(names: tuple[str, str], difference: float, p_holm: float, detectable: float = 0.12) -> Contrast:
    numbers = {"only": (5, 13), "p_mcnemar": 0.0963, "p": p_holm / 2, "p_holm": p_holm}
    interval = Interval(difference - 0.1, difference + 0.1)
    return Contrast(names, difference, interval, **numbers, detectable=detectable)


def test_a_difference_is_called_better_only_if_it_is_real_and_else_what_would_have_been_found_is_told() -> None:
    contrasts = [
        contrast(("A", "B"), -0.25, 0.00008),
        contrast(("A", "C"), 0.03, 0.0962),
        contrast(("B", "C"), 0.0, 1.0, float("nan")),
    ]
    table = tables.contrasts_table(contrasts)
    assert table["Verdict"].tolist() == [
        "B is better",
        "no difference found (one of 12.0 points would have been)",
        "no difference found (too few answers differ for any)",
    ]
    assert table["p (Holm)"].tolist() == ["<0.001", "0.096", "1.0"]
    assert table["p (McNemar)"].tolist() == ["0.096"] * 3
    assert table["Difference"].tolist()[:2] == [
        f"\N{MINUS SIGN}25.0 (\N{MINUS SIGN}35.0{NBSP}to{NBSP}\N{MINUS SIGN}15.0)",
        f"+3.0 (\N{MINUS SIGN}7.0{NBSP}to{NBSP}13.0)",
    ]
    assert table["Only one right"].tolist()[0] == f"5{NBSP}:{NBSP}13"
    more = tables.more_seeds_table({1: [contrasts[1]]})
    assert more.to_dict("records") == [
        {"Seed": 1, "First": "A", "Second": "C", "Difference": table["Difference"].tolist()[1]}
    ]


def test_silence_is_counted_fit_by_fit(kfold: ExperimentResult) -> None:
    row = tables.silence_table([kfold]).iloc[0]
    right, heard = [], []
    for run in kfold.runs:
        test = run.predictions[run.predictions["split"] == "test"]
        correct = test[[f"p_{label}" for label in range(10)]].to_numpy().argmax(1) == test["y_true"]
        right.append(int(correct[test["silent"]].sum()))
        heard.append(correct[~test["silent"]].mean())
    assert row["Right in each fit"] == ", ".join(map(str, right))
    assert row["Heard windows"] == pytest.approx(np.mean(heard))


def test_original_numbers_stand_beside_ours_on_its_data_set_alone(kfold: ExperimentResult, tmp_path: Path) -> None:
    assert tables.original_table([kfold]).empty
    assert tables.original_f1_table([kfold]).empty
    ours = result_of(tmp_path, ESC10)
    row = tables.original_table([ours]).iloc[0]
    assert row["Original"] == pytest.approx(305 / 720)
    assert row["Our AUC"] == pytest.approx(ours.mean("window", "auc_macro"))
    f1 = tables.original_f1_table([ours])
    assert f1["Original"].mean() == pytest.approx(0.3754, abs=1e-4)
    assert f1["Ours"].tolist() == ours.scores("window").per_class["f1"].tolist()


def test_the_ablation_has_a_row_for_each_change(tmp_path: Path) -> None:
    written = replace(
        result_of(tmp_path, protocol="split", recipe="as-written", runs_dir=str(tmp_path)), mark="as written"
    )
    changed = replace(result_of(tmp_path, protocol="split", runs_dir=str(tmp_path)), mark="warm-up")
    nothing = ExperimentResult(written.experiment, (), (written.runs[0].config,), "mixup")
    table = tables.ablation_table([written, changed, nothing])
    assert table["Change"].tolist() == ["as written", "warm-up", "mixup"]
    assert table.loc[0, "Training"] == written.runs[0].metrics["scores"]["train"]["clip"]["accuracy"]
    assert table.loc[0, "Test, seed 0"] == tables.percent(written.mean("clip"))
    assert table.loc[2, "Test, seed 0"] == "missing"
    assert "Against as written" not in table, "one seed agrees with nobody"


@pytest.mark.parametrize(
    ("skills", "verdict"),
    [((0.9, 0.9), "higher"), ((0.05, 0.05), "lower"), ((0.9, 0.05), "seeds differ"), ((0.9, None), None)],
)
def test_of_several_seeds_an_effect_is_claimed_if_all_agree(
    skills: tuple[float, float | None], verdict: str | None, tmp_path: Path
) -> None:
    store, results = RunStore(tmp_path), []
    for seed, skill in enumerate(skills):
        for mark, expected in (("as written", 0.5), ("warm-up", skill)):
            changes = {} if mark == "as written" else {"warmup_fraction": 0.2}
            experiment = Experiment(
                model="cnn", protocol="split", recipe="as-written", recipe_changes=changes, seed=seed, epochs=2
            )
            (config,) = experiment.fits(DEMO)
            runs = (
                () if expected is None else (write_run(store, config, skill=expected, n_windows=1, clips_per_class=4),)
            )
            results.append(ExperimentResult(experiment, runs, () if runs else (config,), mark=mark))
    table = tables.ablation_table(results).set_index("Change")
    told = table["Against as written"].astype(object).where(table["Against as written"].notna(), None)
    assert told.to_dict() == {"as written": None, "warm-up": verdict}


def test_the_environment_lists_every_fit_once(kfold: ExperimentResult) -> None:
    split = ExperimentResult(kfold.experiment.changed(protocol="split"), kfold.runs[:1])
    table = tables.environment_table([kfold, split])
    assert table["Run"].tolist() == [run.config.fit_id[-8:] for run in kfold.runs]
    assert table["Minutes"].tolist() == [0.2] * 4


def test_choices_tell_what_stands_behind_an_architecture(kfold: ExperimentResult, tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("model,val_fold\ncnn,4\ncnn,2\nmel-cnn,2\ntransformer-h2,3\n")
    heads = result_of(tmp_path, model="transformer", num_heads=2, protocol="split")
    found = Gathered(RunStore(tmp_path), DEMO, (kfold, heads))
    row, other = tables.choices_table(found).to_dict("records")
    assert (other["Trials"], other["Trials validated on"]) == (1, "fold 3")
    assert (row["Architecture"], row["Parameters"], row["Fits"], row["Trials"]) == ("CNN", 128_682, 4, 2)
    assert (row["Trials validated on"], row["Trained on"], row["Seeds"]) == ("fold 2, fold 4", "cpu", "0")


def test_a_confusion_matrix_is_told_in_a_sentence(kfold: ExperimentResult) -> None:
    scores = kfold.scores("clip")
    wrong = scores.confusion - np.diag(np.diag(scores.confusion))
    told = tables.describe(scores)
    assert f"{scores.n_correct} of {scores.n} clips on the diagonal" in told
    assert told.endswith(f"({wrong.max()})") or not wrong.any()


def test_the_recordings_are_attributed_by_name() -> None:
    sentence = tables.attribution()
    assert sentence.count(", ") > 100
    assert sentence.startswith("The recordings come from freesound.org, by ")
