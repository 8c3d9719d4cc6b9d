"""The report's tables and formulas, each from run folders alone: data frames and LaTeX for ``report.show``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audioclf_lib.config import Recipe, in_words
from audioclf_lib.data.windowing import HOP_SIZE, WINDOW_SIZE
from audioclf_lib.metrics.baselines import TITLES, baseline_answers, baseline_scores
from audioclf_lib.metrics.errors import answers_to_silence
from audioclf_lib.metrics.results import PROTOCOL_TITLES, SPLIT_TITLES, ExperimentResult
from audioclf_lib.metrics.scores import SPLITS, Scores
from audioclf_lib.metrics.uncertainty import Contrast, Interval, bootstrap_interval, chance_p, p_value
from audioclf_lib.report.show import escape_markdown
from audioclf_lib.runs.store import Run
from audioclf_lib.suite.ablation import AS_WRITTEN

NBSP = "\N{NO-BREAK SPACE}"
DATASET_TITLES = {"demo": "the demo set of generated sounds", "esc10": "ESC-10", "esc50": "ESC-50"}
DEMO_NOTICE = "Demo data set: generated sounds, not recordings"
ORIGINAL = Path(__file__).parent / "text" / "original.csv"  # numbers that the original report's text or lists state
LITERATURE = ORIGINAL.with_name("literature.csv")  # numbers that other works state
ORIGINAL_DATASET = "esc10"  # also of the literature
# How ``report.show`` writes the columns of ``ExperimentResult.fits_table`` and of ``scores_table``.
FITS = {"Epoch": ".0f"} | dict.fromkeys(("Training", "Validation", "Test", "Balanced"), ".1%")
FITS |= dict.fromkeys(("Training loss", "Validation loss", "Test loss", "Macro F1", "AUC"), ".2f")
SCORES = {"Balanced": ".1%", "Macro F1": ".2f", "AUC": ".2f", "ECE": ".3f", "ECE, clips": ".3f"}
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


def points(difference: float, interval: Interval) -> str:
    """A difference of accuracies: ``+3.2 (-1.0 to 7.5)``, in percentage points."""
    low, high = (f"{100 * end:.1f}".replace("-", "−") for end in interval)
    return f"{100 * difference:+.1f}".replace("-", "−") + f" ({low}{NBSP}to{NBSP}{high})"


def accuracy_latex(scores: Scores) -> str:
    """Accuracy written out: the confusion matrix's diagonal over its sum."""
    diagonal = [str(count) for count in np.diag(scores.confusion)]
    terms = diagonal if len(diagonal) <= 12 else [*diagonal[:5], r"\cdots", *diagonal[-3:]]
    right = rf"\frac{{{' + '.join(terms)}}}{{{scores.n}}} = \frac{{{scores.n_correct}}}{{{scores.n}}}"
    return rf"\mathrm{{accuracy}} = {right} = {scores.accuracy:.4f}"


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


def data_numbers(run: Run) -> dict[str, int | str]:
    """What ``data.md`` may name."""
    rows = run.predictions
    n_windows = int(rows["window_index"].max()) + 1
    return {
        "dataset": DATASET_TITLES.get(run.config.dataset, run.config.dataset),
        "n_clips": rows["clip_id"].nunique(),
        "n_recordings": rows["source"].nunique(),
        "n_classes": len(run.config.class_names),
        "n_folds": rows["fold"].nunique(),
        "n_windows": n_windows,
        "n_samples": WINDOW_SIZE + (n_windows - 1) * HOP_SIZE,
        "window_size": WINDOW_SIZE,
        "hop_size": HOP_SIZE,
    }


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
    """Where, with what and for how long every fit was trained; *Run* ends the name of its folder."""
    rows = {
        run.config.fit_id: {
            "Fit": ", ".join([result.architecture, f"validation fold {run.config.val_fold}", *result.differences]),
            "Epochs": run.config.epochs,
            "Minutes": run.environment["wall_seconds"] / 60,
            "Device": run.environment["device"],
            "Threads": run.environment["threads"],
            "PyTorch": run.environment["versions"]["torch"],
            "Run": run.config.fit_id.rsplit("-", 1)[-1],
        }
        for result in results
        for run in result.runs
    }
    return pd.DataFrame(rows.values())


# -------------------------------------------------------------------------------------------------------------- scores


def scores_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """Test scores side by side: accuracies with deviation over fits and interval, the others as means over fits."""
    return pd.DataFrame(
        {
            "Experiment": result.short_title,
            "Fits": len(result.runs),
            "Clips": percent(result.mean("clip"), result.std("clip"), result.intervals["clip"]),
            "Averaged": percent(result.averaged_accuracy, interval=result.averaged_interval)
            if result.is_averaged
            else None,
            "Windows": percent(result.mean("window"), result.std("window"), result.intervals["window"]),
            "Balanced": result.mean("clip", "balanced_accuracy"),
            "Macro F1": result.mean("clip", "macro_f1"),
            "AUC": result.mean("clip", "auc_macro"),
            "ECE": result.calibration.ece,
            "ECE, clips": result.clip_calibration.ece,
        }
        if result.runs
        else {"Experiment": result.short_title, "Fits": 0, "Clips": "missing"}
        for result in results
    )


def baselines_table(results: Sequence[ExperimentResult], baselines: pd.DataFrame) -> pd.DataFrame:
    """Clip accuracy of each baseline on the folds of the experiments: those of the rotation and of cross-validation.

    Args:
        results: the experiments beside which the baselines stand.
        baselines: what ``RunStore.load_baselines`` gives.
    """
    protocols = {PROTOCOL_TITLES[each.experiment.protocol]: each for each in results if len(each.configs) > 1}
    rows = []
    for baseline, title in TITLES.items():
        for protocol, result in protocols.items():
            pairs = [(config.val_fold, config.test_fold) for config in result.configs]
            answers = baseline_answers(baselines, baseline, pairs)
            right = answers["right"].to_numpy()
            clips = percent(right.mean(), interval=bootstrap_interval(right, answers["source"].tolist()))
            scores = baseline_scores(baselines, result.class_names, baseline, pairs)
            row = {"Baseline": title, "Protocol": protocol, "Clips": clips, "Balanced": scores.balanced_accuracy}
            rows.append(row | {"Macro F1": scores.macro_f1})
    return pd.DataFrame(rows)


def literature_table() -> pd.DataFrame:
    """Clip accuracies on ESC-10 that other works state, with the reference and what to know of the protocol."""
    table = pd.read_csv(LITERATURE, keep_default_na=False)
    remarks = table["protocol"].where(table["remark"] == "", table["protocol"] + "; " + table["remark"])
    works = (
        table["key"].str.extract(r"^([a-z]+)(\d{4})").apply(lambda work: f"{work[0].capitalize()} {work[1]}", axis=1)
    )
    return pd.DataFrame({"Model": table["what"], "Clips": table["accuracy"], "Work": works, "Remark": remarks})


def contrasts_table(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """Every declared contrast: difference with interval, sign-flip test, McNemar's test, and what could be found."""
    return pd.DataFrame(
        {
            "First": contrast.names[0],
            "Second": contrast.names[1],
            "Difference": points(contrast.difference, contrast.interval),
            "p": p_value(contrast.p),
            "p (Holm)": p_value(contrast.p_holm),
            "Only one right": f"{contrast.only[0]}{NBSP}:{NBSP}{contrast.only[1]}",
            "p (McNemar)": p_value(contrast.p_mcnemar),
            "Verdict": _verdict(contrast),
        }
        for contrast in contrasts
    )


def _verdict(contrast: Contrast) -> str:
    first, second = contrast.names
    if contrast.is_real:
        return f"{first if contrast.difference > 0 else second} is better"
    if np.isnan(contrast.detectable):
        return "no difference found; too few disagree for any"
    return f"no difference found; {100 * contrast.detectable:.1f} points would have been"


def more_seeds_table(contrasts: Sequence[tuple[int, Contrast]]) -> pd.DataFrame:
    """The declared contrasts with other seeds: the difference with its interval; they are not tested again."""
    return pd.DataFrame(
        {"Seed": seed, "First": names[0], "Second": names[1], "Difference": points(each.difference, each.interval)}
        for seed, each in contrasts
        for names in [each.names]
    )


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


def silence_numbers(run: Run) -> dict[str, int | float]:
    """What ``silence.md`` may name: silent test windows, the most that one answer has right, and what is left then."""
    test = run.predictions.query("split == 'test'")
    silent = test.loc[test["silent"], "y_true"]
    most = int(silent.value_counts().max()) if len(silent) else 0
    return {"n_silent": len(silent), "most": most, "ceiling": 1 - (len(silent) - most) / len(test)}


def ablation_table(results: Sequence[ExperimentResult]) -> pd.DataFrame:
    """A row per architecture and change of the recipe: clip accuracies of the weights kept, the last for every seed.

    Returns:
        DataFrame with Architecture, Change, Training and Validation (means over the seeds), *Test, seed 0* and so on
        and, of several seeds, *Against as written*: ``higher`` or ``lower`` if all seeds agree on it, else ``seeds
        differ``.
    """
    by_change: dict[tuple[str, str], dict[int, ExperimentResult]] = {}
    for result in results:
        by_change.setdefault((result.architecture, result.mark), {})[result.experiment.seed] = result
    seeds = sorted({seed for of_seed in by_change.values() for seed in of_seed})
    rows = []
    for (architecture, change), of_seed in by_change.items():
        runs = [run for result in of_seed.values() for run in result.runs]
        row: dict[str, Any] = {"Architecture": architecture, "Change": change}
        for split in ("train", "validation"):
            accuracies = [run.metrics["scores"][split]["clip"]["accuracy"] for run in runs]
            row[SPLIT_TITLES[split]] = np.mean(accuracies) if runs else None
        written = by_change.get((architecture, AS_WRITTEN), {})
        gains = []
        for seed in seeds:
            there = [each[seed] for each in (of_seed, written) if seed in each and each[seed].runs]
            row[f"Test, seed {seed}"] = percent(of_seed[seed].mean("clip")) if of_seed.get(seed) in there else "missing"
            if len(there) == 2:
                gains.append(there[0].mean("clip") - there[1].mean("clip"))
        if len(seeds) > 1:
            agreed = "higher" if min(gains, default=0) > 0 else "lower" if max(gains, default=0) < 0 else "seeds differ"
            row["Against as written"] = None if change == AS_WRITTEN or len(gains) < len(seeds) else agreed
        rows.append(row)
    return pd.DataFrame(rows)


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


def original_numbers() -> dict[str, float]:
    """What ``original.md`` may name: *p_below*, of 66 or fewer of 720 windows right among ten classes by chance."""
    return {"p_below": chance_p(66, 720, 1 / 10, "less")}


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


def key_numbers(results: Sequence[ExperimentResult]) -> dict[str, int | float | str]:
    """What ``abstract.md``, ``discussion.md`` and ``conclusion.md`` may name.

    *best* is the experiment with the highest clip accuracy: of the rotations, else of the cross-validations, else of
    the splits, whose one fit says least.
    """
    best = max(results, key=lambda result: (result.is_rotation, len(result.runs) > 1, result.mean("clip")))
    scores = best.scores("clip")
    low, high = best.intervals["clip"]
    epochs = sorted({result.experiment.epochs for result in results})
    runs = {run.config.fit_id: run for result in results for run in result.runs}
    means = {
        f"mean_{split}": sum(run.metrics["scores"][split]["clip"]["accuracy"] for run in runs.values()) / len(runs)
        for split in SPLITS
    }
    return {
        "dataset": DATASET_TITLES.get(best.dataset, best.dataset),
        "n_experiments": len(results),
        "n_fits": len(runs),
        "epochs": " or ".join(map(str, epochs)),
        "n_classes": len(best.class_names),
        "n_test_clips": scores.n,
        "clip_share": 1 / scores.n,
        "chance": scores.chance,
        "best": best.title,
        "best_accuracy": best.mean("clip"),
        "best_low": low,
        "best_high": high,
        "best_windows": best.mean("window"),
        **means,
    }
