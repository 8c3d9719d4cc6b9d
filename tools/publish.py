"""The published reference results: a plan's finished fits without their weights, a table of scores, README's results.

``report/published`` is laid out as any runs directory and is in git. What is published stays: a fit that was trained
on another day or machine is kept when the runs directory no longer holds it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from audioclf_lib.report.original import ORIGINAL, ORIGINAL_DATASET
from audioclf_lib.report.phrases import (
    NBSP,
    count,
    describe_dataset_slug,
    enumerate_words,
    percent,
    percent_with_std,
)
from audioclf_lib.report.results import ExperimentResult, known_dataset
from audioclf_lib.suite.variants import RESCORED, TRACE, planned_diagnosis

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import PUBLISHED_DIR, explained, replace_file
from audioclf_lib.config import MODELS, Experiment, FitConfig, KnownDataset
from audioclf_lib.data import dataset_slug
from audioclf_lib.metrics.scores import LEVELS, best_fit
from audioclf_lib.report.show import NO_VALUE
from audioclf_lib.runs.store import WEIGHTS, Run, RunStore
from audioclf_lib.suite.plan import Plan, last_plan_path, save_plan

RESULTS = "results.csv"
START, END = "<!-- results: written by `audioclf publish` from results.csv -->", "<!-- end of results -->"

SCORES = {
    f"{split}_{level}_{score}": "float64"
    for split in ("validation", "test")
    for level in LEVELS
    for score in ("accuracy", *(["accuracy_without_silence"] if level == "window" else []), "macro_f1", "macro_auc")
}
COLUMNS = {
    **{"fit": "str", "model": "str", "num_heads": "Int64", "recipe": "str", "val_fold": "int64", "test_fold": "int64"},
    **{"seed": "int64", "epochs": "int64", "chosen_epoch": "int64"},
    **SCORES,
    "minutes": "float64",
    "device": "str",
}


@dataclass(frozen=True)
class Publication:
    """What ``publish`` did.

    Attributes:
        added: fits that were not published before.
        published: the plan's fits that are there now.
        missing: the plan's fits that nobody has trained yet; None if not even the data set's folds are known.
        weights: fits that are published with their weights.
        weights_lost: best fits whose weights are not at hand.
        readme: whether README's table was brought up to date.
    """

    added: tuple[str, ...]
    published: tuple[str, ...]
    missing: tuple[str, ...] | None
    weights: tuple[str, ...]
    weights_lost: tuple[str, ...]
    readme: bool


def publish(
    plan: Plan, *, runs_dir: Path, to: Path = PUBLISHED_DIR, weights: bool = True, readme: Path | None = None
) -> Publication:
    """Copy what is finished of a plan; run it again after every fit.

    Args:
        plan: whose fits are published, and nothing else.
        runs_dir: where they were trained.
        to: where they are published.
        weights: also keep the weights of the best CNN and the best Transformer.
        readme: text file whose results table is brought up to date; None for none.

    Raises:
        InputError: the runs are of another version of the data set than those published, a run folder is damaged, or
            something cannot be written.
    """
    source, target = RunStore(runs_dir), RunStore(to)
    known = _common_dataset(plan, source, target)
    fits = planned_fits(plan, known) if known else []
    added = [fit for fit in fits if source.exists(fit) and not target.exists(fit)]
    for fit in added:
        adopt(source.load(fit), target)
    for fit in fits:
        _copy_traces(fit, source, target)
    published = [fit for fit in fits if target.exists(fit)]
    lost = _keep_best_weights(plan, known, source, target, copy=weights) if known else []
    if published or (to / RESULTS).exists():
        table = results_table(target.find(known.name if known else None))
        with explained(to / RESULTS, "free space or choose another folder"):  # numbers keep their last bit
            replace_file(to / RESULTS, table.to_csv(index=False, lineterminator="\n").encode())
        save_plan(plan, last_plan_path(to))
    return Publication(
        added=tuple(fit.fit_id for fit in added),
        published=tuple(fit.fit_id for fit in published),
        missing=tuple(fit.fit_id for fit in fits if not target.exists(fit)) if known else None,
        weights=tuple(fit.fit_id for fit in published if target.load(fit).has_weights),
        weights_lost=tuple(lost),
        readme=readme is not None and refresh_readme(readme, results_markdown(read_results(to), plan, known)),
    )


def planned_fits(plan: Plan, known: KnownDataset) -> list[FitConfig]:
    """Every fit that a plan asks for, each once: those of its experiments, of its checks and of its diagnosis."""
    diagnosis = planned_diagnosis(plan)
    fits = _distinct_fits([*plan.experiments_list(), *plan.checks_list()], known)
    return [*fits, *(case.config for case in diagnosis.cases(known))] if diagnosis else fits


def adopt(run: Run, target: RunStore) -> None:
    """Copy a whole run folder but for its weights, under a temporary name that it loses when it is complete.

    Raises:
        InputError: the run folder is damaged, the disk is full or the folder cannot be written.
    """
    run.verify()
    path = target.path(run.config)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    with explained(path, "free space or choose another folder"):
        try:
            shutil.copytree(run.path, draft, ignore=shutil.ignore_patterns(WEIGHTS))
            os.rename(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def adopt_weights(run: Run, published: Run) -> None:
    """Copy the weights that a published fit lacks from the folder of the same training."""
    if run.has_weights and not published.has_weights and run.metrics == published.metrics:
        run.verify()
        with explained(published.path, "free space or choose another folder"):
            replace_file(published.path / WEIGHTS, (run.path / WEIGHTS).read_bytes())


def _copy_traces(fit: FitConfig, source: RunStore, target: RunStore) -> None:
    """What the diagnosis found out about a fit."""
    for name in (RESCORED, TRACE):
        table = source.load_trace(fit, name)
        if table is not None and target.load_trace(fit, name) is None:
            target.save_trace(fit, name, table)


def _distinct_fits(experiments: Iterable[Experiment], known: KnownDataset) -> list[FitConfig]:
    return list({fit.fit_id: fit for experiment in experiments for fit in experiment.fits(known)}.values())


def _common_dataset(plan: Plan, source: RunStore, target: RunStore) -> KnownDataset | None:
    """The data set of the runs and of what is published, which must be the same version."""
    name = dataset_slug(plan.dataset)
    here, there = known_dataset(source, name), known_dataset(target, name)
    if here and there and here.fingerprint != there.fingerprint:
        raise InputError(
            f"the newest runs in {source.runs_dir} are of another version of data set {name} ({here.fingerprint}) than "
            f"those in {target.runs_dir} ({there.fingerprint}); publish them to another folder"
        )
    return there or here


def best_fits(plan: Plan, known: KnownDataset, store: RunStore) -> list[Run]:
    """Of the plan's experiments, the CNN and the Transformer that are best on their own validation fold."""
    fits = _distinct_fits(plan.experiments_list(), known)
    runs = [store.load(fit) for fit in fits if store.exists(fit)]
    groups = [[run for run in runs if run.config.model == model] for model in MODELS]
    return [best_fit(group) for group in groups if group]


def _keep_best_weights(plan: Plan, known: KnownDataset, source: RunStore, target: RunStore, *, copy: bool) -> list[str]:
    """Give the best fits their weights, take them from all others; the ids of those whose weights are not at hand."""
    best = [run.config for run in best_fits(plan, known, target)]
    for run in target.find(known.name):
        if run.config not in best:
            (run.path / WEIGHTS).unlink(missing_ok=True)  # scores and predictions stay
    if copy:
        for config in best:
            if source.exists(config):
                adopt_weights(source.load(config), target.load(config))
    return [config.fit_id for config in best if copy and not target.load(config).has_weights]


# -------------------------------------------------------------------------------------------------- the table of fits


def results_table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per fit: what it is, and its scores on the validation and the test fold at both levels.

    Scores are those of ``metrics.json``; "accuracy" counts all windows, silent ones too.
    """
    return pd.DataFrame([_row(run) for run in runs], columns=list(COLUMNS)).astype(COLUMNS)


def read_results(folder: Path) -> pd.DataFrame:
    """What ``results.csv`` in a folder holds; no rows if it is not there."""
    path = folder / RESULTS
    try:
        # Without pandas' list of words for "nothing": a name or a reason may be one of them.
        return pd.read_csv(path, dtype=dict(COLUMNS), keep_default_na=False, na_values=[""])[list(COLUMNS)]
    except FileNotFoundError:
        return results_table([])
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it from git, or remove it") from None


def _row(run: Run) -> dict[str, Any]:
    config, scores = run.config, run.metrics["scores"]
    row: dict[str, Any] = {name: getattr(config, name) for name in COLUMNS if name in FitConfig.model_fields}
    row |= {"fit": config.fit_id, "chosen_epoch": run.metrics["chosen"]["epoch"]}
    for split in ("validation", "test"):
        for level, values in scores.get(split, {}).items():
            row |= {
                f"{split}_{level}_{name}": values.get(name)
                for name in ("accuracy", "accuracy_without_silence", "macro_f1")
            }
            row[f"{split}_{level}_macro_auc"] = values["auc"]["macro"]
    row |= {"minutes": run.environment["wall_seconds"] / 60, "device": run.environment["device"]}
    return {name: row.get(name) for name in COLUMNS}


# ------------------------------------------------------------------------------------------------------------ README


def results_markdown(results: pd.DataFrame, plan: Plan, known: KnownDataset | None) -> str:
    """README's table: a row for each of a plan's experiments and checks, from ``results.csv`` alone.

    Args:
        results: as ``read_results`` gives it.
        plan: whose experiments and checks are shown.
        known: the data set of the published fits; None before there is one.
    """
    if known is None:
        return "No fit has been published yet."
    experiments = [*plan.experiments_list(), *plan.checks_list()]
    seeds = f"{'seed' if len(plan.seeds) == 1 else 'seeds'} {enumerate_words([str(seed) for seed in plan.seeds])}"
    where = f"test fold {plan.test_fold} of {describe_dataset_slug(known.name)}, unless a row names another"
    how = f"recipe `{plan.recipe}`, {count(plan.epochs, 'epoch')}, {seeds}"
    lines = [
        f"Accuracy on {where} (mean ± standard deviation over the fits): {how}.",
        "",
        "| experiment | fits | windows | clips | windows in the original |",
        "|---|---|---:|---:|---:|",
        *(_experiment_line(results, experiment, known) for experiment in experiments),
    ]
    return "\n".join(lines)


def _experiment_line(results: pd.DataFrame, experiment: Experiment, known: KnownDataset) -> str:
    fits = [fit.fit_id for fit in experiment.fits(known)]
    done = results[results["fit"].isin(fits)]
    cells = [ExperimentResult(experiment, ()).short_title]
    cells.append(str(len(fits)) if len(done) == len(fits) else f"{len(done)} of {count(len(fits), 'fit')}")
    cells += [percent_with_std(list(done[f"test_{level}_accuracy"])) if len(done) else NO_VALUE for level in LEVELS]
    theirs = ORIGINAL.get(experiment.full_name) if known.name == ORIGINAL_DATASET else None
    cells.append(percent(theirs.accuracy) if theirs and theirs.accuracy else NO_VALUE)
    return f"| {' | '.join(cells)} |".replace(NBSP, " ")


def refresh_readme(path: Path, table: str) -> bool:
    """Replace what stands between the two markers; False if there is no such file or no markers in it."""
    if not path.is_file():
        return False
    before, start, rest = path.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        return False
    with explained(path, "free space or make it writable"):
        replace_file(path, f"{before}{START}\n\n{table}\n\n{END}{after}".encode())
    return True
