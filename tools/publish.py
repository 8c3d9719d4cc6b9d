"""For maintainers: copy a plan's finished fits into ``report/published``, which is in git.

    python tools/publish.py --plan reference --runs-dir report/runs

Run folders are copied whole, without weights but for the best fit of each architecture, since weights of 10 MB would
stay in git's history; a model card lies beside those weights. ``results.csv`` holds a row for each fit,
``baselines.csv`` one for each baseline and pair of folds, and README's table is made from them. What is published
stays: a fit that the runs directory no longer holds is kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import uuid
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT, PUBLISHED_DIR, explained, replace_file
from audioclf_lib.config import Experiment, FitConfig, KnownDataset, rotation
from audioclf_lib.metrics.baselines import TITLES, baseline_scores
from audioclf_lib.metrics.results import ExperimentResult
from audioclf_lib.metrics.scores import LEVELS, SPLITS, best_fit
from audioclf_lib.report.card import CARD, model_card
from audioclf_lib.report.gather import identify_dataset
from audioclf_lib.report.tables import NBSP, percent
from audioclf_lib.report.values import DATASET_TITLES
from audioclf_lib.runs.store import WEIGHTS, Run, RunStore
from audioclf_lib.suite.ablation import ablation_experiments
from audioclf_lib.suite.plan import Plan, last_plan_path, load_plan, save_plan

RESULTS, BASELINES, README = "results.csv", "baselines.csv", PROJECT_ROOT / "README.md"
START, END = "<!-- results: written by tools/publish.py -->", "<!-- end of results -->"


def publish(plan: Plan, *, runs_dir: Path, to: Path, weights: bool = True, readme: Path | None = None) -> pd.DataFrame:
    """Copy what is finished of a plan; returns the table of all fits that are published.

    Args:
        plan: whose fits are published.
        runs_dir: where they were trained.
        to: where they are published, laid out as any runs directory.
        weights: keep those of the best fit of each architecture.
        readme: text file whose results table is brought up to date; None for none.

    Raises:
        InputError: nothing is known of the plan's data set, a run folder is damaged, or something cannot be written.
    """
    source, target = RunStore(runs_dir), RunStore(to)
    dataset = identify_dataset(plan.dataset, source) or identify_dataset(plan.dataset, target)
    if dataset is None:
        raise InputError(f"{runs_dir} holds no fit on {plan.dataset}; train some with `audioclf suite`")
    experiments = [*plan.experiments_list(), *plan.checks_list()]
    main = _fits(experiments, dataset)
    for config in [*main, *_fits(ablation_experiments(plan), dataset)]:
        if source.exists(config) and not target.exists(config):
            _copy(source.load(config), target)
    _choose_weights([target.load(config) for config in main if target.exists(config)], source, target, keep=weights)
    results = pd.DataFrame([_row(run) for run in target.find(dataset.name)])
    with explained(to, "free space or choose another folder"):
        replace_file(to / RESULTS, results.to_csv(index=False, lineterminator="\n").encode())
        baselines = _publish_baselines(dataset, source, target)
        if baselines is not None:
            replace_file(to / BASELINES, baselines.to_csv(index=False, lineterminator="\n").encode())
    save_plan(plan, last_plan_path(to))
    if readme is not None:
        _refresh(readme, results_markdown(results, baselines, experiments, dataset))
    return results


def _fits(experiments: Sequence[Experiment], dataset: KnownDataset) -> list[FitConfig]:
    return list({fit.fit_id: fit for experiment in experiments for fit in experiment.fits(dataset)}.values())


def _copy(run: Run, target: RunStore) -> None:
    """Copy a run folder but for its weights, under a temporary name until it is complete."""
    run.verify()
    path = target.path(run.config)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    with explained(path, "free space or choose another folder"):
        try:
            shutil.copytree(run.path, draft, ignore=shutil.ignore_patterns(WEIGHTS))
            os.rename(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _publish_baselines(dataset: KnownDataset, source: RunStore, target: RunStore) -> pd.DataFrame | None:
    """Copy the baselines' answers; returns their clip scores, a row for each baseline and pair of folds."""
    answers = source.load_baselines(dataset)
    if answers is not None:
        target.save_baselines(dataset, answers)
    else:
        answers = target.load_baselines(dataset)
    if answers is None:
        return None
    pairs = answers[["val_fold", "test_fold"]].drop_duplicates().itertuples(index=False, name=None)
    rows = []
    for (val_fold, test_fold), baseline in product(pairs, TITLES):
        scores = baseline_scores(answers, dataset.class_names, baseline, [(val_fold, test_fold)])
        row = {"baseline": baseline, "val_fold": val_fold, "test_fold": test_fold, "accuracy": scores.accuracy}
        rows.append(row | {"balanced_accuracy": scores.balanced_accuracy, "macro_f1": scores.macro_f1})
    return pd.DataFrame(rows)


def _choose_weights(published: Sequence[Run], source: RunStore, target: RunStore, *, keep: bool) -> None:
    """Give the best fit of each architecture its weights and a model card, and take both from all others."""
    models = {run.config.model for run in published}
    best = [best_fit([run for run in published if run.config.model == model]) for model in models]
    for run in target.find(published[0].config.dataset if published else None):
        if run not in best:
            for name in (WEIGHTS, CARD):
                (run.path / name).unlink(missing_ok=True)
        elif keep and not run.has_weights and source.exists(run.config):
            trained = source.load(run.config)
            if trained.has_weights and trained.metrics == run.metrics:
                trained.verify()
                replace_file(run.path / WEIGHTS, (trained.path / WEIGHTS).read_bytes())
        if run.has_weights:
            replace_file(run.path / CARD, model_card(run).encode())


def _row(run: Run) -> dict[str, Any]:
    """What a fit is, and the scores of ``metrics.json``; window scores count silent windows, too."""
    config, metrics = run.config, run.metrics
    row: dict[str, Any] = {"fit": config.fit_id, "model": config.model, "title": config.model_title}
    row |= {name: getattr(config, name) for name in ("val_fold", "test_fold", "seed", "epochs", "recipe")}
    row["chosen_epoch"] = metrics["chosen"]["epoch"]
    for split in SPLITS:
        row[f"{split}_loss"] = metrics["losses"][split]
        for level in LEVELS:
            scores = metrics["scores"][split][level]
            row |= {f"{split}_{level}_{name}": scores[name] for name in ("accuracy", "balanced_accuracy", "macro_f1")}
            row[f"{split}_{level}_macro_auc"] = scores["auc"]["macro"]
    return row | {"minutes": run.environment["wall_seconds"] / 60, "device": run.environment["device"]}


def results_markdown(
    results: pd.DataFrame, baselines: pd.DataFrame | None, experiments: Sequence[Experiment], dataset: KnownDataset
) -> str:
    """README's table, from the published tables alone: test accuracies of what is complete, and what is not.

    An experiment whose fits all are another's, too, has no row: a split beside the k-fold that holds its fit.
    """
    lines, missing = ["| experiment | fits | windows | clips |", "|---|---:|---:|---:|"], []
    fits_of = [{fit.fit_id for fit in experiment.fits(dataset)} for experiment in experiments]
    for experiment, fits in zip(experiments, fits_of, strict=True):
        if any(fits < others for others in fits_of):
            continue
        title, done = ExperimentResult(experiment, ()).short_title, results[results["fit"].isin(fits)]
        if len(done) < len(fits):
            missing.append(f"{title} ({len(done)} of {len(fits)} fits)".replace(NBSP, " "))
            continue
        cells = [title, f"{len(fits)}", *(_mean_and_spread(done[f"test_{level}_accuracy"]) for level in LEVELS)]
        lines.append(f"| {' | '.join(cells)} |".replace(NBSP, " "))
    if baselines is not None:
        rotated = baselines.merge(pd.DataFrame(rotation(dataset.folds), columns=["val_fold", "test_fold"]))
        for baseline, rows in rotated.groupby("baseline", sort=False):
            cells = [f"{TITLES[baseline]}, rotation", f"{len(rows)}", "–"]
            lines.append(f"| {' | '.join([*cells, _mean_and_spread(rows['accuracy'])])} |".replace(NBSP, " "))
    where = DATASET_TITLES.get(dataset.name, dataset.name)
    about = f"Test accuracy on {where} (mean ± standard deviation over the fits; a rotation tests every clip once)"
    incomplete = ["", f"Not complete yet: {'; '.join(missing)}."] if missing else []
    return "\n".join([f"{about}, {experiments[0].epochs} epochs.", "", *lines, *incomplete])


def _mean_and_spread(values: pd.Series) -> str:
    return percent(values.mean(), values.std()) if len(values) else "–"


def _refresh(path: Path, table: str) -> None:
    """Replace what stands between the two markers."""
    before, start, rest = path.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise InputError(f"{path} lacks the lines {START} and {END}; put them where the table belongs")
    with explained(path, "free space or make it writable"):
        replace_file(path, f"{before}{START}\n\n{table}\n\n{END}{after}".encode())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="reference", help="name or file of the plan (reference)")
    parser.add_argument("--runs-dir", type=Path, default=DEFAULT_RUNS_DIR, help="where the fits were trained")
    parser.add_argument("--to", type=Path, default=PUBLISHED_DIR, help="where they are published (report/published)")
    parser.add_argument("--readme", type=Path, default=README, help="file with the results table")
    parser.add_argument("--no-weights", action="store_true", help="copy no weights")
    given = parser.parse_args(arguments)
    try:
        options = {"runs_dir": given.runs_dir, "to": given.to, "readme": given.readme, "weights": not given.no_weights}
        results = publish(load_plan(given.plan), **options)
    except InputError as error:
        sys.exit(str(error))
    print(f"{len(results)} fits are published in {given.to}")


if __name__ == "__main__":
    main()
