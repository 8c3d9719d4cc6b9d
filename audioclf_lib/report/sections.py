"""The parts of experiment notebooks and of the report: each shows figures and tables with captions and a reading."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure

from audioclf_lib import figures
from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Recipe
from audioclf_lib.data import Dataset
from audioclf_lib.data.windowing import HOP_SIZE, WINDOW_SIZE, cut_windows
from audioclf_lib.metrics.scores import LEVELS, Level
from audioclf_lib.models import CNN, ConvTransformer, create_model, derivation
from audioclf_lib.report import observations, phrases, verdicts
from audioclf_lib.report.original import ORIGINAL, ORIGINAL_DATASET
from audioclf_lib.report.results import ExperimentResult, mean_and_std
from audioclf_lib.report.show import (
    escape_markdown,
    show_equation,
    show_figure,
    show_front_matter,
    show_table,
    show_text,
)

# --------------------------------------------------------------------------------------------------------- data set


def show_dataset_summary(dataset: Dataset) -> None:
    """Table: clips, windows and silent windows of every class."""
    classes = pd.Series(dataset.labels)
    silent = dataset.silent
    table = pd.DataFrame(
        {
            "Class": dataset.class_names,
            "Clips": [int((classes == label).sum()) for label in range(len(dataset.class_names))],
            "Windows": [int(silent[dataset.labels == label].size) for label in range(len(dataset.class_names))],
            "Silent windows": [int(silent[dataset.labels == label].sum()) for label in range(len(dataset.class_names))],
        }
    )
    n_folds = len(set(dataset.folds.tolist()))
    show_table(
        table,
        caption=f"The data set {escape_markdown(dataset.name)}: {len(dataset)} clips in {n_folds} folds, "
        f"{silent.size:,} windows, {int(silent.sum())} of them silent.",
        label="tbl:dataset",
    )


def show_example_clips(dataset: Dataset) -> None:
    """Waveform and mel spectrogram of the first clip of every class."""
    for label, name in enumerate(dataset.class_names):
        clip = int((dataset.labels == label).argmax())
        figure = Figure(figsize=(figures.TEXT_WIDTH, 1.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        figures.plot_waveform(dataset.waveforms[clip], dataset.sample_rate, ax=left)
        figures.plot_mel_spectrogram(dataset.waveforms[clip], dataset.sample_rate, n_mels=40, max_frames=60, ax=right)
        show_figure(
            figure,
            caption=f"{escape_markdown(capitalise_first(name))}: waveform and mel spectrogram of clip "
            f"{escape_markdown(dataset.clip_ids[clip])}.",
            label=f"fig:clip-{label}",
            name=f"clip-{label}",
            dataset=dataset.name,
            width="100%",
        )


def show_windows(dataset: Dataset) -> None:
    """How the clip with the most silence is cut, and how much silence each class holds."""
    clip = int(dataset.silent.sum(axis=1).argmax())
    n_windows = dataset.silent.shape[1]
    show_figure(
        figures.plot_windows(dataset.waveforms[clip], dataset.silent[clip], dataset.sample_rate),
        caption=f"Clip {escape_markdown(dataset.clip_ids[clip])} cut into {n_windows} windows of {WINDOW_SIZE:,} "
        f"samples, {HOP_SIZE:,} apart; {int(dataset.silent[clip].sum())} of them are silent (hatched).",
        label="fig:windows",
        name="windows",
        dataset=dataset.name,
        width="100%",
    )
    show_figure(
        figures.plot_silence_per_class(dataset),
        caption="Silent windows per class: events shorter than the clip were padded with digital silence.",
        label="fig:silence",
        name="silence-per-class",
        dataset=dataset.name,
        width="85%",
    )


# ----------------------------------------------------------------------------------------------------- architectures


def make_model(model: str, num_heads: int | None, num_classes: int, recipe: Recipe) -> CNN | ConvTransformer:
    """The model that a recipe trains, fresh and on the CPU; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        return create_model(
            model,  # type: ignore[arg-type]
            num_heads=num_heads,
            num_classes=num_classes,
            dropout=recipe.dropout,
            activation=recipe.activation,
        )


def show_model(model: CNN | ConvTransformer, *, label: str, title: str, dataset: str) -> None:
    """Layer table with totals, and the diagram of the tensors' way through the model."""
    layers = derivation.derive_layers(model)
    totals = derivation.model_totals(layers)
    show_figure(
        figures.plot_architecture(layers),
        caption=f"{title}: the tensors on their way from one window to the class scores.",
        label=f"fig:{label}-architecture",
        name=f"{label}-architecture",
        dataset=dataset,
        width="100%",
    )
    table = derivation.layer_table(layers).rename(columns=str.capitalize)
    show_table(
        table,
        caption=f"{title}: layers, output shapes for one window, and parameters; {totals.parameters:,} in all.",
        label=f"tbl:{label}-layers",
    )
    show_table(
        derivation.totals_table(totals).rename(columns=str.capitalize),
        caption=f"{title}: totals, sizes in MB of $2^{{20}}$ bytes for one window in float32.",
        label=f"tbl:{label}-totals",
    )


def show_derivation(model: CNN | ConvTransformer, heading_level: int = 3) -> None:
    """Every output size and parameter count, step by step."""
    show_text(derivation.derivation_markdown(derivation.derive_layers(model), heading_level))


def show_listing(model: CNN | ConvTransformer) -> None:
    """The modules as torch prints them."""
    show_text(f"```text\n{model}\n```")


# ----------------------------------------------------------------------------------------------------------- results


def show_experiment(result: ExperimentResult, heading_level: int = 3) -> None:
    """All about one experiment, or what is missing of it: scores, curves, confusion, ROC and F1."""
    show_text(f"{'#' * heading_level} {escape_markdown(result.title)}")
    if not result.is_complete:
        show_text(observations.read_missing(result))
    if not result.runs:
        return
    show_fits(result)
    show_curves(result)
    show_confusion(result)
    show_roc(result)
    show_f1(result)


def show_fits(result: ExperimentResult) -> None:
    """Table of the fits, and mean ± standard deviation."""
    rows = [
        {
            "Validated on": f"fold {run.config.val_fold}",
            "Epoch kept": int(run.metrics["chosen"]["epoch"]),
            "Window accuracy": scores["window"]["accuracy"],
            "Clip accuracy": scores["clip"]["accuracy"],
            "Macro F1": scores["window"]["macro_f1"],
            "Macro AUC": scores["window"]["auc"]["macro"],
        }
        for run in result.runs
        for scores in [run.metrics["scores"]["test"]]
    ]
    table = pd.DataFrame(rows)
    if len(rows) > 1:
        numbers = table.drop(columns=["Validated on", "Epoch kept"])
        summary = pd.DataFrame([numbers.mean(), numbers.std()])
        summary.insert(0, "Validated on", ["mean", "standard deviation"])
        table = pd.concat([table, summary], ignore_index=True)
    formats = {"Epoch kept": ".0f", "Window accuracy": ".1%", "Clip accuracy": ".1%"}
    show_table(
        table,
        caption=f"{escape_markdown(result.title)}: scores on test fold {result.experiment.test_fold}; "
        "macro F1 and macro AUC at window level.",
        label=f"tbl:{result.name}-fits",
        formats=formats,
    )
    show_text(f"{observations.read_fits(result)} {verdicts.read_intervals(result)}")


def show_curves(result: ExperimentResult) -> None:
    """The six curves and their reading."""
    show_figure(
        figures.plot_learning_curves(
            result.histories(), chosen_epochs=result.chosen_epochs(), chance=1 / len(result.class_names)
        ),
        caption=f"{escape_markdown(result.title)}: loss and window accuracy on training, validation and test folds; "
        "the dot marks the epoch that was kept, chosen on the validation fold.",
        label=f"fig:{result.name}-curves",
        name="curves",
        dataset=result.dataset,
        experiment=result.name,
        width="100%",
    )
    show_text(observations.read_curves(result))


def show_confusion(result: ExperimentResult, level: Level = "window", *, row_percent: bool = False) -> None:
    """Confusion matrix of the best fit in counts (and in per cent of each row), accuracy written out, reading."""
    scores = result.scores(level)
    suffix = "" if level == "window" else f"-{level}s"
    kinds = {"": "counts"} | ({"-percent": "per cent of each row"} if row_percent else {})
    for ending, kind in kinds.items():
        show_figure(
            figures.plot_confusion(scores.confusion, scores.class_names, normalise=bool(ending)),
            caption=f"{escape_markdown(result.title)}: confusion matrix of the {scores.n} test {level}s, {kind}; "
            f"{shown_fit(result)}.",
            label=f"fig:{result.name}-confusion{suffix}{ending}",
            name=f"confusion{suffix}{ending}",
            dataset=result.dataset,
            experiment=result.name,
            width="57%",
        )
    show_equation(observations.accuracy_latex(scores))
    show_text(observations.read_confusion(scores))
    if level == "window":
        show_text(observations.read_silence(scores, result.best))


def show_roc(result: ExperimentResult, level: Level = "window") -> None:
    """ROC curves of the best fit and their reading."""
    scores = result.scores(level)
    show_figure(
        figures.plot_roc(scores.roc, scores.auc),
        caption=f"{escape_markdown(result.title)}: ROC curves of the test {level}s, one class against the rest; "
        f"{shown_fit(result)}.",
        label=f"fig:{result.name}-roc",
        name="roc",
        dataset=result.dataset,
        experiment=result.name,
        width="66%",
    )
    show_text(observations.read_roc(scores))


def show_f1(result: ExperimentResult, level: Level = "window") -> None:
    """Per-class scores of the best fit as bars and as a table, and their reading."""
    scores = result.scores(level)
    show_figure(
        figures.plot_f1_bars(scores.per_class),
        caption=f"{escape_markdown(result.title)}: F1 of every class, test {level}s; {shown_fit(result)}.",
        label=f"fig:{result.name}-f1",
        name="f1",
        dataset=result.dataset,
        experiment=result.name,
        width="80%",
    )
    table = scores.per_class.rename(columns={"f1": "F1", "auc": "AUC"}).rename(columns=capitalise_first)
    show_table(
        table.rename_axis("Class"),
        caption=f"{escape_markdown(result.title)}: precision, recall, F1 and AUC of every class, test {level}s.",
        label=f"tbl:{result.name}-f1",
    )
    show_text(observations.read_f1(scores))


def capitalise_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def shown_fit(result: ExperimentResult) -> str:
    """For captions: which fit a figure shows."""
    fold = result.best.config.val_fold
    if len(result.runs) == 1:
        return f"validation fold {fold}"
    return f"the fit that is best on its validation fold ({fold})"


def show_attention(result: ExperimentResult, dataset: Dataset) -> None:
    """What the CLS token of the last layer attends to, averaged over the windows of the test fold's clips.

    A published fit without its weights has a sentence in place of the figure.
    """
    run = result.best
    try:
        weights = run.weights()
    except InputError as error:
        show_text(f"The attention is not shown: {escape_markdown(error)}.")
        return
    model = make_model(
        run.config.model, run.config.num_heads, len(run.config.class_names), run.config.recipe_settings
    ).eval()
    model.load_state_dict(weights)
    assert isinstance(model, ConvTransformer)
    windows = cut_windows(dataset.waveforms[dataset.folds == run.config.test_fold])[:, ::4].flatten(0, 1)
    cls = model.attention_weights(windows[:64])[-1][:, :, 0].mean(0)  # (heads, 33)
    show_figure(
        figures.plot_attention(cls.numpy()),
        caption=f"{escape_markdown(result.title)}: what CLS attends to in the last layer, mean over "
        f"{min(64, len(windows))} test windows; token 0 is CLS itself, the others are channels of the convolutions.",
        label=f"fig:{result.name}-attention",
        name="attention",
        dataset=result.dataset,
        experiment=result.name,
        width="100%",
    )


# -------------------------------------------------------------------------------------------------------- comparison


def comparison_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """A row per experiment and level: experiment, level, mean, std, fits; an experiment without runs has none."""
    rows = []
    for result in results:
        for level in LEVELS:
            values = result.values(level) if result.runs else []
            mean, std = mean_and_std(values) if values else (float("nan"), None)
            rows.append({"experiment": result.short_title, "level": level, "mean": mean, "std": std, "fits": values})
    return pd.DataFrame(rows)


def show_comparison(results: Sequence[ExperimentResult]) -> None:
    """All experiments side by side, as a table and a figure, and what the differences are worth."""
    there = [result for result in results if result.runs]
    rows = [
        {
            "Experiment": result.short_title,
            "Fits": len(result.runs),
            "Window accuracy": phrases.percent_with_interval(result.values("window"), result.intervals["window"]),
            "Clip accuracy": phrases.percent_with_interval(result.values("clip"), result.intervals["clip"]),
            "Averaged": phrases.percent_with_interval([result.averaged_accuracy], result.averaged_interval)
            if result.is_averaged
            else None,
            "Macro F1": mean_and_std(result.values("window", "macro_f1"))[0],
            "AUC": mean_and_std(result.values("window", "auc_macro"))[0],
            "ECE": result.calibration.ece,
        }
        if result.runs
        else {"Experiment": result.short_title, "Fits": 0, "Window accuracy": "missing", "Clip accuracy": "missing"}
        for result in results
    ]
    show_table(
        pd.DataFrame(rows),
        caption="All experiments on the test fold: mean ± standard deviation over the fits of each, and in brackets "
        "the 95 % interval over test clips; clip accuracy with the fits' probabilities averaged; macro F1, macro AUC "
        "and expected calibration error at window level.",
        label="tbl:comparison",
        formats={"Macro F1": ".2f", "AUC": ".2f"},
    )
    if not there:
        return
    show_figure(
        figures.plot_comparison(comparison_table(results), chance=1 / len(there[0].class_names)),
        caption="All experiments side by side: mean accuracy on the test fold, its standard deviation, "
        "and every fit as a dot.",
        label="fig:comparison",
        name="comparison",
        dataset=there[0].dataset,
        width="100%",
    )
    show_text(observations.read_comparison(results))
    show_text(observations.read_split_against_kfold(results))


def show_checks(checks: Sequence[ExperimentResult], results: Sequence[ExperimentResult]) -> None:
    """A section on a plan's checks beside the same experiments on its own test fold; nothing if it has none."""
    if not checks:
        return
    planned = {(result.experiment.name, result.experiment.seed): result for result in results}
    pairs = [(check, planned.get((check.experiment.name, check.experiment.seed))) for check in checks]
    show_text("## The same recipe on another test fold")
    show_text(
        f"All experiments above are tested on fold {results[0].experiment.test_fold}. A recipe that was fitted to that "
        "fold would do worse when another one is the test fold ([@tbl:checks])."
    )
    rows = [
        {
            "Experiment": (partner or check).short_title,
            "Test fold": result.experiment.test_fold,
            "Window accuracy": phrases.percent_with_std(result.values("window")) if result.runs else "missing",
            "Clip accuracy": phrases.percent_with_std(result.values("clip")) if result.runs else "missing",
            "Macro F1": mean_and_std(result.values("window", "macro_f1"))[0] if result.runs else None,
            "AUC": mean_and_std(result.values("window", "auc_macro"))[0] if result.runs else None,
        }
        for check, partner in pairs
        for result in (partner, check)
        if result is not None
    ]
    show_table(
        pd.DataFrame(rows),
        caption="The checks, and the same experiments on the plan's test fold; macro F1 and macro AUC at window level.",
        label="tbl:checks",
    )
    for check, partner in pairs:
        show_text(observations.read_check(check, partner))


def show_original(results: Sequence[ExperimentResult]) -> None:
    """The original report's figures beside ours."""
    rows = []
    for result in results:
        theirs = ORIGINAL.get(result.experiment.name)
        if theirs is None:
            continue
        ours = result.values("window") if result.runs else []
        rows.append(
            {
                "Experiment": result.short_title,
                "Original": theirs.accuracy,
                "Ours": phrases.percent_with_interval(ours, result.intervals["window"]) if ours else "missing",
                "Original AUC": theirs.auc,
                "Our AUC": mean_and_std(result.values("window", "auc_macro"))[0] if ours else None,
                "In the original": theirs.remark,
            }
        )
    if not rows:
        return
    show_table(
        pd.DataFrame(rows),
        caption="Window accuracy and AUC on the test fold, the original's beside ours (mean ± standard deviation over "
        "the fits, and in brackets the 95 % interval over test clips).",
        label="tbl:original",
        formats={"Original": ".1%", "Original AUC": ".2f", "Our AUC": ".2f"},
    )
    show_text(observations.tell_original())
    there = [result for result in results if result.runs]
    if there and there[0].dataset == ORIGINAL_DATASET:
        show_text(observations.read_original(results))
        show_original_f1(results)
    elif there:
        show_text(
            "The original's numbers are of ESC-10; those of this report are of another data set, so the two columns "
            "must not be compared."
        )


def show_original_f1(results: Sequence[ExperimentResult]) -> None:
    """F1 per class of the CNN under cross-validation, beside the original's list."""
    result = next((result for result in results if result.experiment.name == "cnn-kfold" and result.runs), None)
    theirs = ORIGINAL["cnn-kfold"].f1
    if result is None or theirs is None or len(theirs) != len(result.class_names):
        return
    table = pd.DataFrame(
        {"Class": result.class_names, "Original": theirs, "Ours": result.scores().per_class["f1"].to_numpy()}
    )
    show_table(
        table,
        caption="F1 per class of the CNN under cross-validation, the original's list beside ours.",
        label="tbl:original-f1",
    )


def show_recipe(recipe: Recipe, *, name: str, label: str) -> None:
    """The settings a fit is trained with, each with its reason."""
    settings = recipe.model_dump()
    table = pd.DataFrame(
        {
            "Setting": [setting_name(key) for key in settings],
            "Value": [describe_setting(value) for value in settings.values()],
            "What it does": [Recipe.model_fields[key].description for key in settings],
        }
    )
    show_table(table, caption=f"Settings of recipe {escape_markdown(name)}.", label=f"tbl:{label}-recipe")


def setting_name(key: str) -> str:
    """``gain_db`` -> ``gain dB``."""
    return key.replace("_", " ").replace(" db", " dB")


def describe_setting(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"


# ------------------------------------------------------------------------------------------------- the report's frame

DEMO_NOTICE = "Demo data set: generated sounds, not recordings"


def show_title_page(
    results: Sequence[ExperimentResult], dataset: str, *, title: str, authors: str, course: str, date: str
) -> None:
    """Front matter with an abstract from the numbers; on the demo set every page says that it is the demo set."""
    show_front_matter(
        title=title,
        authors=authors,
        course=course,
        date=date,
        abstract=observations.write_abstract(results),
        notice=DEMO_NOTICE if dataset == "demo" else "",
    )


def show_plan(results: Sequence[ExperimentResult]) -> None:
    """Which experiments this report is about."""
    show_text(observations.read_plan(results))


def show_data_of_runs(results: Sequence[ExperimentResult]) -> None:
    """The data set as the runs saw it: clips, windows and silent windows of every class, and the folds."""
    run = next((run for result in results for run in result.runs), None)
    if run is None:
        show_text("No fit has been trained yet, so there is no data set to describe.")
        return
    rows = run.predictions
    names = run.config.class_names
    by_class = rows.groupby("y_true")
    table = pd.DataFrame(
        {
            "Class": names,
            "Clips": by_class["clip_id"].nunique().reindex(range(len(names))).to_numpy(),
            "Windows": by_class.size().reindex(range(len(names))).to_numpy(),
            "Silent windows": by_class["silent"].sum().reindex(range(len(names))).astype(int).to_numpy(),
        }
    )
    n_folds, n_windows = rows["fold"].nunique(), int(rows["window_index"].max()) + 1
    n_samples = WINDOW_SIZE + (n_windows - 1) * HOP_SIZE
    show_text(
        f"The recordings are those of {phrases.describe_dataset_name(run.config.dataset)}: "
        f"{rows['clip_id'].nunique()} clips of {len(names)} classes in {n_folds} folds. "
        "[@tbl:data] counts them; all numbers are taken from the run folders."
    )
    show_table(
        table,
        caption=f"Clips, windows and silent windows of every class; {len(rows):,} windows in all, "
        f"{int(rows['silent'].sum())} of them silent.",
        label="tbl:data",
    )
    show_text(
        f"A clip has {n_samples:,} samples at 16 kHz mono (longer recordings are trimmed, shorter ones padded with "
        f"zeros). Windows of {WINDOW_SIZE:,} samples start {HOP_SIZE:,} samples apart, which gives"
    )
    show_equation(
        rf"\left\lfloor \frac{{{n_samples} - {WINDOW_SIZE}}}{{{HOP_SIZE}}} \right\rfloor + 1 = {n_windows}",
        "eq:windows",
    )
    show_text(
        f"windows of a clip, an array of shape ({n_windows}, 1, {WINDOW_SIZE}). Each window gets the label of its "
        f"clip, so that {n_windows} labels stand beside {n_windows} windows. Folds are assigned to clips before they "
        "are cut: no clip, and no two clips of one recording, has windows in two folds."
    )


def show_recipes(results: Sequence[ExperimentResult]) -> None:
    """The recipe settings of both architectures side by side."""
    experiments = {result.experiment.model: result.experiment for result in results}
    columns = {
        "CNN" if model == "cnn" else "Transformer": experiment.recipe_settings.model_dump()
        for model, experiment in sorted(experiments.items())
    }
    recipe = results[0].experiment.recipe
    table = pd.DataFrame({"Setting": [setting_name(key) for key in Recipe.model_fields]})
    for name, settings in columns.items():
        table[name] = [describe_setting(value) for value in settings.values()]
    table["What it does"] = [str(field.description) for field in Recipe.model_fields.values()]
    show_table(table, caption=f"Settings of recipe {escape_markdown(recipe)}.", label="tbl:recipe")


def show_heads(head_counts: Sequence[int]) -> None:
    """How the token width is divided over the heads, for every head count."""
    tables = []
    for num_heads in head_counts:
        table = derivation.head_table(num_heads=num_heads)
        table.insert(0, "heads", num_heads)
        tables.append(table)
    columns = {"heads": "Heads", "head": "Head", "width": "Width d", "features": "Features", "scale": "Scale 1/√d"}
    show_table(
        pd.concat(tables, ignore_index=True).rename(columns=columns),
        caption="Widths of the attention heads: true heads of unequal width where 250 does not divide evenly.",
        label="tbl:heads",
    )


def show_environment(results: Sequence[ExperimentResult]) -> None:
    """Where, with what and for how long every fit was trained."""
    runs = {run.config.fit_id: (run, result) for result in results for run in result.runs}
    if not runs:
        return
    rows = [
        {
            "Fit": ", ".join([run.config.model_label, f"validation fold {run.config.val_fold}", *result.particulars]),
            "Epochs": run.config.epochs,
            "Minutes": run.environment["wall_seconds"] / 60,
            "Device": run.environment["device"],
            "Threads": run.environment["threads"],
            "PyTorch": run.environment["versions"]["torch"],
            "Run": f"`{fit_id.rsplit('-', 1)[-1]}`",
        }
        for fit_id, (run, result) in runs.items()
    ]
    show_table(
        pd.DataFrame(rows),
        caption="Every fit with its training time, longer where fits ran side by side; the last column ends the name "
        "of its run folder.",
        label="tbl:environment",
        formats={"Minutes": ".1f"},
        markdown=["Run"],
    )
