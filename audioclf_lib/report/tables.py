"""The report's tables and formulas, each from run folders alone: data frames and LaTeX for ``report.show``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audioclf_lib.config import Recipe, in_words
from audioclf_lib.data.esc import read_registry
from audioclf_lib.metrics.baselines import TITLES, baseline_answers, baseline_scores
from audioclf_lib.metrics.errors import answers_to_silence
from audioclf_lib.metrics.results import PROTOCOL_TITLES, SPLIT_TITLES, ExperimentResult
from audioclf_lib.metrics.scores import Scores
from audioclf_lib.metrics.uncertainty import Contrast, Interval, bootstrap_interval, p_value
from audioclf_lib.models.derivation import LayerDerivation, model_totals, signature
from audioclf_lib.models.formulas import FORMULA_BREAK, text_shape
from audioclf_lib.report.gather import Gathered
from audioclf_lib.report.show import Markdown, escape_markdown
from audioclf_lib.report.values import fits_note, key_result, verdict
from audioclf_lib.runs.store import Run
from audioclf_lib.suite.ablation import AS_WRITTEN

NBSP = "\N{NO-BREAK SPACE}"
DEMO_NOTICE = "Demo data set: generated sounds, not recordings"
ORIGINAL = Path(__file__).parent / "text" / "original.csv"  # numbers that the original report's text or lists state
LITERATURE = ORIGINAL.with_name("literature.csv")  # numbers that other works state
ORIGINAL_DATASET = "esc10"  # also of the literature
# How ``report.show`` writes the columns of ``ExperimentResult.fits_table`` and of ``scores_table``.
FITS = {"Epoch": ".0f", "Minutes": ".0f"} | dict.fromkeys(("Training", "Validation", "Test", "Balanced"), ".1%")
FITS |= dict.fromkeys(("Training loss", "Validation loss", "Test loss", "Macro F1", "AUC"), ".2f")
SCORES = {"Macro F1": ".2f", "AUC": ".2f", "ECE": ".3f", "Accuracy": ".1%"}
# Values with which a setting of the recipe does nothing.
OFF: dict[str, tuple[Any, ...]] = dict.fromkeys(Recipe.model_fields, (0, "none")) | {
    "speed_perturbation": (1.0,),
    "encoder_lr_scale": (1.0,),
}


def percent(mean: float, std: float = float("nan"), interval: Interval | None = None) -> str:
    """``61.1 %``, ``61.1 ± 2.3 %``, ``61.1 ± 2.3 % (55.0 to 66.9)``; a table cell may break before the bracket."""
    spread = "" if np.isnan(std) else f"{NBSP}±{NBSP}{100 * std:.1f}"
    between = f" ({100 * interval.low:.1f}{NBSP}to{NBSP}{100 * interval.high:.1f})" if interval else ""
    return f"{100 * mean:.1f}{spread}{NBSP}%{between}"


def points(contrast: Contrast) -> str:
    """A difference of accuracies: ``+3.2 (-1.0 to 7.5)``, in percentage points."""
    low, high = (100 * end for end in contrast.interval)
    return f"{100 * contrast.difference:+.1f} ({low:.1f}{NBSP}to{NBSP}{high:.1f})".replace("-", "−")


def accuracy_latex(scores: Scores) -> str:
    """Accuracy written out: the confusion matrix's diagonal over its sum."""
    diagonal = [str(count) for count in np.diag(scores.confusion)]
    terms = diagonal if len(diagonal) <= 12 else [*diagonal[:5], r"\cdots", *diagonal[-3:]]
    right = rf"\frac{{{' + '.join(terms)}}}{{{scores.n}}} = \frac{{{scores.n_correct}}}{{{scores.n}}}"
    return rf"\mathrm{{accuracy}} = {right} = {scores.accuracy:.4f}"


def describe(scores: Scores) -> str:
    """What a confusion matrix shows, for who cannot see it."""
    wrong = scores.confusion - np.diag(np.diag(scores.confusion))
    true, answer = (scores.class_names[place] for place in np.unravel_index(wrong.argmax(), wrong.shape))
    most = f"; {true} is most often taken for {answer} ({wrong.max()})" if wrong.any() else ""
    return f"Confusion matrix: {scores.n_correct} of {scores.n} {scores.level}s on the diagonal{most}"


# --------------------------------------------------------------------------------------------------- data and training


def data_table(run: Run) -> pd.DataFrame:
    """Clips, source recordings, windows and silent windows of every class, as the run saw them."""
    counts = {
        "Clips": ("clip_id", "nunique"),
        "Recordings": ("source", "nunique"),
        "Windows": ("clip_id", "size"),
        "Silent windows": ("silent", "sum"),
    }
    table = run.predictions.groupby("y_true").agg(**counts)
    classes = pd.Index(run.config.class_names, name="Class")
    return table.reindex(range(len(classes)), fill_value=0).astype(int).set_axis(classes)


def recipe_table(recipes: Recipe | Mapping[str, Recipe]) -> pd.DataFrame:
    """The settings that are in use, with what each does; of several recipes a column for each name."""
    recipes = {"Value": recipes} if isinstance(recipes, Recipe) else recipes
    rows = []
    for name, field in Recipe.model_fields.items():
        values = {title: getattr(recipe, name) for title, recipe in recipes.items()}
        used = {title: in_words(value) for title, value in values.items() if value not in OFF[name]}
        if used:
            rows.append({"Setting": name.replace("_", " "), **used, "What it does": field.description})
    columns = ["Setting", *recipes, "What it does"]
    return pd.DataFrame(rows, columns=columns).astype(object).where(lambda table: table.notna(), None)


def environment_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """Every fit with its clip accuracies, and where and for how long it was trained; *Run* ends its folder's name."""
    rows = {
        run.config.fit_id: {
            "Fit": ", ".join([result.architecture, *result.differences]),
            "Validated, tested on": f"folds {run.config.val_fold}, {run.config.test_fold}",
            **{title: run.metrics["scores"][split]["clip"]["accuracy"] for split, title in SPLIT_TITLES.items()},
            "Minutes": run.environment["wall_seconds"] / 60,
            "Device": run.environment["device"],
            "Run": run.config.fit_id.rsplit("-", 1)[-1],
        }
        for result in results
        for run in result.runs
    }
    return pd.DataFrame(rows.values())


def choices_table(found: Gathered) -> pd.DataFrame:
    """What stands behind each architecture: parameters, fits, seeds, devices, and the trials of its settings."""
    rows = []
    for title, each in {result.architecture: result for result in found.results}.items():
        same = [result for result in found.results if result.architecture == title]
        runs = {run.config.fit_id: run for result in same for run in result.runs}.values()
        trials = found.trials_of(each)
        row = {"Architecture": title, "Parameters": each.n_parameters}
        row |= {"Fits": len(runs), "Seeds": _listed(run.config.seed for run in runs), "Trials": len(trials)}
        row |= {"Trials validated on": _listed(f"fold {fold}" for fold in trials.get("val_fold", ())) or None}
        rows.append(row | {"Trained on": _listed(run.environment["device"] for run in runs)})
    return pd.DataFrame(rows)


def _listed(things: Iterable[object]) -> str:
    return ", ".join(sorted(set(map(str, things))))


def attribution() -> str:
    """Whose recordings ESC-10 holds, as a sentence: the licence asks that they are named."""
    authors = read_registry()["author"].drop_duplicates().sort_values(key=lambda names: names.str.lower())
    return f"The recordings come from freesound.org, by {', '.join(map(escape_markdown, authors))}."


def layers_table(layers: Sequence[LayerDerivation], shown: Sequence[LayerDerivation] = ()) -> pd.DataFrame:
    """Every layer with what it makes of one window, how many parameters it has, and by which formula.

    Args:
        layers: of a model.
        shown: those of another architecture; what both have in front is left out, and a row sums it up.
    """
    same = [signature([one]) == signature([other]) for one, other in zip(layers, shown, strict=False)]
    after = [*same, False].index(False)
    sums = [(f"first {after} steps", "as above", layers[after - 1].output_shape, layers[:after], "")] if after else []
    blocks = [list(group) for _, group in groupby(layers[after:], key=lambda layer: layer.block)]
    for position, block in enumerate(blocks):
        if position and signature(block) == signature(blocks[position - 1]):
            like = f"as {blocks[position - 1][0].block.lower()}"
            sums.append((block[0].block.lower(), like, block[-1].output_shape, block, ""))
        else:
            sums += [(layer.name, layer.kind, layer.output_shape, [layer], _formulas(layer)) for layer in block]
    rows = [
        {
            "Layer": name,
            "Type": kind,
            "Output": Markdown(text_shape(shape).replace(" ", NBSP)),  # a shape is never broken
            "Parameters": sum(layer.parameters for layer in inside),
            "Derivation": Markdown(formula),
        }
        for name, kind, shape, inside, formula in sums
    ]
    total = {"Layer": "all", "Type": "", "Output": "", "Parameters": sum(layer.parameters for layer in layers)}
    return pd.DataFrame([*rows, total | {"Derivation": ""}])


def describe_totals(layers: Sequence[LayerDerivation]) -> str:
    """What torchsummary prints under its table, in a sentence."""
    totals = model_totals(layers)
    parts = {"input": totals.input_mb, "forward and backward pass": totals.forward_backward_mb}
    parts |= {"parameters": totals.parameters_mb, "all": totals.total_mb}
    sizes = ", ".join(f"{name} {size:.2f}{NBSP}MB" for name, size in parts.items())
    return f"Trained are {totals.trainable_parameters:,} of {totals.parameters:,} parameters; memory: {sizes}."


def _formulas(layer: LayerDerivation) -> str:
    """The formulas of a layer that say more than "unchanged" and "none"."""
    shape = layer.shape_latex if "=" in layer.shape_latex or layer.kind == "Self-attention" else ""
    formulas = [*shape.split(FORMULA_BREAK), layer.parameters_latex if layer.parameters else ""]
    return "; ".join(f"${formula}$" for formula in formulas if formula)  # a line breaks between them, not within


# -------------------------------------------------------------------------------------------------------------- scores


def leading_experiments(found: Gathered) -> dict[str, list[ExperimentResult]]:
    """For each architecture the experiments with its main settings, rotation first, then k-fold and split.

    The main settings are those that have a rotation; of several, those that the plan's contrasts name first.
    """
    named = [label for pair in found.declared for label in pair]
    protocols, groups = ["rotation", "kfold", "split"], dict[str, list[ExperimentResult]]()
    for name in dict.fromkeys(each.experiment.entry.name for each in found.results):
        same = [each for each in found.results if each.experiment.entry.name == name]
        ranks = {id(each): [*named, each.experiment.label].index(each.experiment.label) for each in same}
        first = min(same, key=lambda each: (not each.is_rotation, bool(each.differences), ranks[id(each)]))
        key = first.experiment.label, first.differences
        chosen = [each for each in same if (each.experiment.label, each.differences) == key]
        groups[name] = sorted(chosen, key=lambda each: protocols.index(each.experiment.protocol))
    return groups


def shown_in_full(found: Gathered, groups: Mapping[str, Sequence[ExperimentResult]]) -> list[ExperimentResult]:
    """The experiments with curves and matrices of their own: the first of each group, then every k-fold and split."""
    main = [group[0] for group in groups.values()]
    return main + [each for each in found.results if not each.is_rotation and each not in main]


def scores_table(results: Sequence[ExperimentResult], shown: Collection[str] = ()) -> pd.DataFrame:
    """Test scores side by side: accuracies with deviation over fits and interval, the others as means over fits.

    Args:
        shown: names of the experiments that have a section of their own.
    """
    return pd.DataFrame(
        {
            "Experiment": result.short_title,
            "Fits": f"{len(result.runs)} of {len(result.configs)}" if result.missing else str(len(result.runs)),
            "Clips": percent(result.mean("clip"), result.std("clip"), result.intervals["clip"]),
            "Windows": percent(result.mean("window"), interval=result.intervals["window"]),
            "Macro F1": result.mean("clip", "macro_f1"),
            "AUC": result.mean("clip", "auc_macro"),
            "ECE": result.clip_calibration.ece,
            "Shown in": Markdown(f"[@sec:{result.name}]") if result.name in shown else None,
        }
        if result.runs
        else {"Experiment": result.short_title, "Fits": "0", "Clips": "missing"}
        for result in results
    )


def fits_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """The fits of one architecture at clip level, under their protocols; the split is a row of the k-fold.

    Returns:
        DataFrame with *Fit* and the columns of ``ExperimentResult.fits_table`` but for balanced accuracy.
    """
    splits = {run.config.fit_id for each in results if each.experiment.protocol == "split" for run in each.runs}
    kfolds = {run.config.fit_id for each in results if each.experiment.protocol == "kfold" for run in each.runs}
    tables = []
    for result in results:
        protocol = result.experiment.protocol
        if protocol == "split" and {run.config.fit_id for run in result.runs} <= kfolds:
            continue
        table = result.fits_table().drop(columns="Balanced")
        marks = [" (the split)" if protocol == "kfold" and run.config.fit_id in splits else "" for run in result.runs]
        names = zip(table.index, [*marks, "", ""], strict=False)
        fold = "test " if result.is_rotation else "validation "
        title = ", ".join([PROTOCOL_TITLES[protocol], *result.differences])
        shown = [f"{title}, {fold if 'fold' in name else ''}{name}{mark}" for name, mark in names]
        table.insert(0, "Fit", shown)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def comparison_table(found: Gathered) -> pd.DataFrame:
    """Clip accuracies for ``figures.plot_comparison``: the models, the baselines and, on ESC-10, what others state."""
    key = key_result(found.results)
    rows: list[dict[str, Any]] = []
    for result in found.experiments:
        if result.experiment.protocol == key.experiment.protocol:
            shown = {"accuracy": result.mean("clip"), **result.intervals["clip"]._asdict()} if result.runs else {}
            name = ", ".join([result.architecture, *result.differences])
            name += f" ({fits_note(result)})" if result.missing and result.runs else ""
            rows.append({"name": name, "group": "this report"} | shown)
    for title, (scores, *_), interval in _baselines(found):
        rows.append({"name": title, "group": "baselines", "accuracy": scores.accuracy} | interval._asdict())
    if found.dataset.name == ORIGINAL_DATASET:
        stated = pd.read_csv(ORIGINAL, index_col="experiment").loc["cnn-kfold", "accuracy"]
        works, accuracies = literature_table(found), {"CNN of the original report (windows)": stated}
        accuracies |= dict(zip(works["What"] + ", " + works["Source"], works["Accuracy"], strict=True))
        rows += [{"name": name, "group": "stated by others", "accuracy": each} for name, each in accuracies.items()]
    return pd.DataFrame(rows, columns=["name", "group", "accuracy", "low", "high"]).astype({"accuracy": float})


def baselines_table(found: Gathered) -> pd.DataFrame:
    """The baselines on the folds of the experiment that the report leads with, in the columns of ``scores_table``."""
    protocol = PROTOCOL_TITLES[key_result(found.results).experiment.protocol]
    return pd.DataFrame(
        {
            "Experiment": f"{title}, {protocol}",
            "Fits": str(len(each)),
            "Clips": percent(scores.accuracy, float(pd.Series([one.accuracy for one in each]).std()), interval),
            "Macro F1": scores.macro_f1,
            "AUC": scores.auc["macro"],
        }
        for title, (scores, *each), interval in _baselines(found)
    )


def _baselines(found: Gathered) -> Iterator[tuple[str, list[Scores], Interval]]:
    """Every baseline on the leading experiment's folds: title, scores of all pooled and of each, and interval."""
    key, table = key_result(found.results), found.baselines
    if table is None:
        return
    pairs = [(config.val_fold, config.test_fold) for config in key.configs]
    for name, title in TITLES.items():
        scores = [baseline_scores(table, key.class_names, name, some) for some in (pairs, *([pair] for pair in pairs))]
        answers = baseline_answers(table, name, pairs)
        yield title, scores, bootstrap_interval(answers["right"].to_numpy(), answers["source"].tolist())


def literature_table(found: Gathered) -> pd.DataFrame:
    """What other works state on ESC-10, under which protocol, and what to know of it; empty on any other data set."""
    works = pd.read_csv(LITERATURE, nrows=None if found.dataset.name == ORIGINAL_DATASET else 0).astype({"key": str})
    works["key"] = works["key"].str.replace(r"(\D+)(\d+).*", lambda key: f"{key[1].capitalize()} {key[2]}", regex=True)
    works.columns = works.columns.str.capitalize()
    return works.rename(columns={"Key": "Source"})[["What", "Source", "Accuracy", "Protocol", "Remark"]]


def contrasts_table(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """Every declared contrast: difference with interval, sign-flip test, McNemar's test, and what could be found."""
    return pd.DataFrame(
        {
            "First": contrast.names[0],
            "Second": contrast.names[1],
            "Difference": points(contrast),
            "p": p_value(contrast.p),
            "p (Holm)": p_value(contrast.p_holm),
            "Only one right": f"{contrast.only[0]}{NBSP}:{NBSP}{contrast.only[1]}",
            "p (McNemar)": p_value(contrast.p_mcnemar),
            "Verdict": verdict(contrast),
        }
        for contrast in contrasts
    )


def more_seeds_table(contrasts: Mapping[int, Sequence[Contrast]]) -> pd.DataFrame:
    """The declared contrasts with other seeds: the difference with its interval; they are not tested again."""
    seeds = [contrasts_table(each).assign(Seed=seed) for seed, each in contrasts.items()]
    return pd.concat(seeds, ignore_index=True)[["Seed", "First", "Second", "Difference"]]


def silence_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """What fits answer to silent test windows, and what these do to window accuracy, the means over an experiment."""
    rows = []
    for result in results:
        fits = answers_to_silence(result.runs)
        counts = fits[list(result.class_names)].sum().sort_values(ascending=False, kind="stable")
        answers = [f"{escape_markdown(str(name))} {count}" for name, count in counts.head(3).items() if count]
        n_silent = fits["n_silent"].sum() if result.is_rotation else fits["n_silent"].iloc[0]
        row = {"Experiment": result.short_title, "Silent windows": int(n_silent)}
        row |= {"Right in each fit": ", ".join(map(str, fits["n_right"])), "Commonest answers": ", ".join(answers)}
        row |= {"All windows": result.mean("window"), "Heard windows": fits["accuracy_without_silence"].mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def ablation_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """A row per architecture and change of the recipe: clip accuracies of the weights kept, the last for every seed.

    Returns:
        DataFrame with Architecture, Change, Training and Validation (means over the seeds), *Test, seed 0* and so on
        and, of several seeds, *Against as written*: ``higher`` or ``lower`` if all seeds agree on it, else ``seeds
        differ``.
    """
    keys, splits = ["Architecture", "Change"], ["train", "validation", "test"]
    scores = pd.DataFrame(
        {"Architecture": result.architecture, "Change": result.mark, "Seed": result.experiment.seed}
        | {split: run.metrics["scores"][split]["clip"]["accuracy"] for run in result.runs for split in splits}
        for result in results
    ).reindex(columns=[*keys, "Seed", *splits])
    table = scores.groupby(keys, sort=False)[splits[:2]].mean().rename(columns=SPLIT_TITLES)
    tests = scores.pivot(index=keys, columns="Seed", values="test").reindex(table.index).astype(float)
    for seed in tests:
        table[f"Test, seed {seed}"] = tests[seed].map(percent, na_action="ignore").fillna("missing")
    if len(tests.columns) > 1:
        changes = table.index.get_level_values("Change")
        written = tests[changes == AS_WRITTEN].droplevel("Change").reindex(table.index.get_level_values("Architecture"))
        gains = tests - written.to_numpy()
        agreed = np.where(gains.gt(0).all(axis=1), "higher", np.where(gains.lt(0).all(axis=1), "lower", "seeds differ"))
        known = gains.notna().all(axis=1) & (changes != AS_WRITTEN)
        table["Against as written"] = pd.Series(agreed, table.index, dtype=object).where(known, None)
    return table.reset_index()


def original_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """Window accuracy and AUC that the original report states, beside ours; empty on any other data set."""
    return pd.DataFrame(
        {
            "Experiment": result.short_title,
            "Original": stated["accuracy"],
            "Ours": percent(result.mean("window"), result.std("window"), result.intervals["window"]),
            "Original AUC": stated["auc"],
            "Our AUC": result.mean("window", "auc_macro"),
            "In the original": stated["remark"],
        }
        for result, stated in _beside_original(results)
    )


def original_f1_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """F1 per class that the original report lists for its cross-validated CNN, beside ours; empty where it has none."""
    for result, stated in _beside_original(results):
        if isinstance(stated["f1"], str):
            theirs, ours = list(map(float, stated["f1"].split())), result.scores("window").per_class["f1"]
            return pd.DataFrame({"Original": theirs, "Ours": ours}).rename_axis("Class")
    return pd.DataFrame()


def _beside_original(results: Sequence[ExperimentResult]) -> Iterator[tuple[ExperimentResult, dict[Any, Any]]]:
    """The experiments that the original has, with whichever recipe they were trained, and what it states of each."""
    rows = pd.read_csv(ORIGINAL, index_col="experiment").to_dict(orient="index")
    for result in results:
        name = result.experiment.changed(recipe="tuned", recipe_changes={}).full_name
        if result.dataset == ORIGINAL_DATASET and name in rows:
            yield result, rows[name]
