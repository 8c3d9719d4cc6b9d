"""Run folders -> results: exactly a plan's fits on exactly its data set, with those that are missing or damaged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import mode

import pandas as pd

from audioclf_lib._support.digests import digest
from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, user_path
from audioclf_lib.config import Experiment, KnownDataset, changed_settings
from audioclf_lib.data import DEFAULT_DATA_DIR, Dataset, dataset_facts, dataset_slug, load_dataset
from audioclf_lib.data.dataset import FIXED_CONTENT
from audioclf_lib.data.esc import find_esc10
from audioclf_lib.metrics.results import ExperimentResult, compare_declared
from audioclf_lib.metrics.uncertainty import Contrast
from audioclf_lib.runs.store import CONFIG, MODEL, Run, RunStore
from audioclf_lib.suite.ablation import ablation_experiments, change_of
from audioclf_lib.suite.plan import Plan, distinctions, last_plan_path, load_plan


@dataclass(frozen=True)
class Gathered:
    """What run folders hold of the experiments of a report.

    Attributes:
        store: the run folders.
        dataset: the data set that every run here was trained on.
        experiments: on the plan's test folds, in its order; at least one has a run.
        checks: experiments on other test folds.
        ablation: the recipe as written with one change at a time; the marks are the names of the changes.
        plan: whose experiments these are; None if they are those that the run folders were found to belong to.
        problems: a sentence for each run folder that could not be read, or was left out.
        recordings: name or folder of the data set's recordings, which may be gone.
    """

    store: RunStore
    dataset: KnownDataset
    experiments: tuple[ExperimentResult, ...]
    checks: tuple[ExperimentResult, ...] = ()
    ablation: tuple[ExperimentResult, ...] = ()
    plan: Plan | None = None
    problems: tuple[str, ...] = ()
    recordings: str = ""

    @property
    def results(self) -> list[ExperimentResult]:
        """The experiments that have a run."""
        return [result for result in self.experiments if result.runs]

    @property
    def runs_compared(self) -> list[Run]:
        """Whose answers are compared clip by clip: the fits of complete rotations, which test every clip, else all."""
        rotations = [result for result in self.results if result.is_rotation and result.is_complete]
        return [run for result in rotations or self.results for run in result.runs]

    @property
    def declared(self) -> tuple[tuple[str, str], ...]:
        """The contrasts that the plan declares, by the labels of two architectures each."""
        return self.plan.contrasts if self.plan else ()

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """The declared contrasts, tested with the plan's first seed."""
        return compare_declared(self.experiments, self.declared, self._seeds[0])

    @cached_property
    def more_seeds(self) -> dict[int, list[Contrast]]:
        """The same contrasts with each further seed of the plan, if only of one architecture, to be shown beside."""
        first, *more = self._seeds
        contrasts = {seed: compare_declared(self.experiments, self.declared, seed, instead=first) for seed in more}
        return {seed: each for seed, each in contrasts.items() if each}

    @property
    def _seeds(self) -> list[int]:
        seeds = {each.experiment.seed for each in self.experiments}
        return sorted(seeds, key=lambda seed: self.plan is not None and seed not in self.plan.seeds)

    @cached_property
    def baselines(self) -> pd.DataFrame | None:
        """What needs no network answers to the same clips; None if the dataset notebook has not run."""
        return self.store.load_baselines(self.dataset)

    def trials_of(self, result: ExperimentResult) -> pd.DataFrame:
        """What an architecture's settings were chosen by, a row for each trial with its ``model`` and ``val_fold``."""
        return self.trials[self.trials["model"] == result.experiment.label]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The trials of all architectures (``trials.csv`` beside the runs); empty if there is none."""
        file = self.store.runs_dir / "trials.csv"
        return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["model", "val_fold"])

    def load_recordings(self) -> Dataset | None:
        """The data set itself; None if its recordings are not here, or others are. Nothing is downloaded."""
        wanted, here = self.recordings or self.dataset.name, os.environ.get("AUDIOCLF_DATA") or DEFAULT_DATA_DIR
        if wanted == "esc10" and find_esc10(Path(here)) is None:
            return None
        try:
            data = load_dataset(wanted)
        except InputError:
            return None
        return data if data.fingerprint == self.dataset.fingerprint else None

    @property
    def folder(self) -> str:
        """Folder of the figures that show several experiments."""
        return f"{self.dataset.name}/report-{digest(' '.join(result.folder for result in self.results))}"


def gather(plan: Plan | str = "", runs_dir: Path | str = "", dataset: str | None = None) -> Gathered:
    """The results of a plan's experiments, checks and ablation; only run folders are read.

    Args:
        plan: a plan, its name, or its file; empty: that of the last suite in ``runs_dir`` or, if none of its fits are
            there, the experiments that the run folders belong to.
        runs_dir: where the run folders are; ``report/runs`` of the project if empty.
        dataset: which one, where a plan or ``runs_dir`` has several.

    Raises:
        InputError: no fit was found, or the data set's runs are of several contents and its recordings are not there.
    """
    store, problems = RunStore(runs_dir or DEFAULT_RUNS_DIR), list[str]()
    last = last_plan_path(store.runs_dir)
    if plan or last.is_file():
        chosen = plan if isinstance(plan, Plan) else load_plan(plan or last, dataset or None)
        gathered = _gather_plan(chosen, store)
        if gathered is not None and gathered.results:
            return gathered
        if plan:
            raise InputError(_describe_nothing(chosen, store, gathered))
        problems.append(f"no fit of {last} is there")
    return _gather_found(store, dataset, problems)


def describe_findings(gathered: Gathered) -> list[str]:
    """Lines for the terminal: what was found, what is missing, what could not be read."""
    everything = [*gathered.experiments, *gathered.checks, *gathered.ablation]
    found = {run.config.fit_id for result in everything for run in result.runs}
    missing = {config.fit_id for result in everything for config in result.missing}
    origin = f"plan {gathered.plan.name}" if gathered.plan else "the experiments found"
    lines = [f"{origin} on {gathered.dataset.name}: {len(found)} of {len(found | missing)} fits are there"]
    lines += [describe_missing(result) for result in everything if result.missing]
    return [*lines, *gathered.problems]


def describe_missing(result: ExperimentResult) -> str:
    """Which fits of an experiment are missing, in one line; empty if none is."""
    tested = result.is_rotation
    folds = ", ".join(str(config.test_fold if tested else config.val_fold) for config in result.missing)
    what = f"{'test' if tested else 'validation'} {'folds' if ',' in folds else 'fold'}"
    return f"missing of {result.title}: {what} {folds}" if folds else ""


def identify_dataset(name_or_path: str, store: RunStore) -> KnownDataset | None:
    """The data set as its recordings say; where they are not there, as its run folders do; None if it has none.

    Raises:
        InputError: recordings that cannot be used, or run folders of several contents and no recordings.
    """
    slug = dataset_slug(name_or_path)
    paths = (user_path(name_or_path), user_path(name_or_path.rsplit(":", 1)[0]))  # my-sounds:4s
    if slug not in FIXED_CONTENT and any(path.exists() for path in paths):
        return dataset_facts(name_or_path)
    known = store.known_datasets(slug)
    if len(known) > 1:
        names = " and ".join(f"{each.name} ({each.fingerprint})" for each in known)
        raise InputError(
            f"{store.runs_dir} holds runs of {len(known)} data sets called {slug}, {names}, and the recordings in "
            f"{name_or_path} are not there to tell which is meant; put them back, or choose one with --dataset"
        )
    return known[0] if known else None


def _read_results(
    experiments: Sequence[Experiment], dataset: KnownDataset, problems: list[str], marks: Sequence[str] | None = None
) -> tuple[ExperimentResult, ...]:
    """The experiments with those of their fits that can be read; what is wrong with others is added to ``problems``."""
    marks = distinctions(experiments) if marks is None else marks
    results, runs = [], dict[str, Run]()
    for experiment, mark in zip(experiments, marks, strict=True):
        configs, store = experiment.fits(dataset), RunStore(experiment.runs_dir)
        for config in configs:
            if config.fit_id not in runs and store.path(config).exists():
                try:
                    run = store.load(config)
                    run.check()
                    runs[config.fit_id] = run
                except InputError as error:
                    problems.append(str(error))
        there = tuple(runs[config.fit_id] for config in configs if config.fit_id in runs)
        missing = tuple(config for config in configs if config.fit_id not in runs)
        results.append(ExperimentResult(experiment, there, missing, mark))
    return tuple(results)


def _gather_plan(plan: Plan, store: RunStore) -> Gathered | None:
    """What is there of a plan; None if nothing is known of its data set."""
    dataset = identify_dataset(plan.dataset, store)
    if dataset is None:
        return None
    variants, problems = ablation_experiments(plan, runs_dir=store.runs_dir), list[str]()
    marks = [change_of(variant) for variant in variants]
    experiments = _read_results(plan.experiments_list(runs_dir=store.runs_dir), dataset, problems)
    checks = _read_results(plan.checks_list(runs_dir=store.runs_dir), dataset, problems)
    ablation = _read_results(variants, dataset, problems, marks)
    told = tuple(dict.fromkeys(problems))
    return Gathered(store, dataset, experiments, checks, ablation, plan, told, recordings=plan.dataset)


def _describe_nothing(plan: Plan, store: RunStore, gathered: Gathered | None) -> str:
    """One sentence: no fit of a plan can be shown, and what is there instead."""
    found, errors = store.scan()
    problems = (gathered.problems if gathered else ()) or ([] if found else errors)
    if problems:
        return f"no fit of plan {plan.name} can be read: {problems[0]}"
    counts = Counter(run.config.dataset for run in found)
    if not counts:
        return f"{store.runs_dir} holds no finished fit; train some with `audioclf suite --plan {plan.name}`"
    there = " and ".join(f"{number} of {name}" for name, number in counts.items())
    return (
        f"no fit of plan {plan.name} on {plan.dataset} is in {store.runs_dir}, where finished fits are {there}; "
        f"`audioclf report --runs-dir {store.runs_dir}` without --plan reports what is there"
    )


# ------------------------------------------------------------------------------------------- run folders without a plan


def _gather_found(store: RunStore, dataset: str | None, problems: list[str]) -> Gathered:
    """The experiments that run folders belong to: of one data set, the one that was trained last unless it is named.

    Of fits that differ in their epochs, threads or version of the architecture, only those trained last are shown.
    Splits on all test folds are one rotation.
    """
    named = identify_dataset(dataset, store) if dataset else None
    found, errors = store.scan(named.name if named else None)
    runs = sorted((run for run in found if run.config.score_test), key=lambda run: (run.path / CONFIG).stat().st_mtime)
    if not runs:
        remedy = "train some with `audioclf suite` or a notebook"
        raise InputError(str(errors[0]) if errors else f"{store.runs_dir} holds no finished fit; {remedy}")
    known = runs[-1].config.known_dataset
    alike: dict[str, list[Run]] = {}  # but for their folds; those trained last come last
    for run in runs:
        if run.config.dataset == known.name:
            key = run.config.model_dump_json(exclude={"train_folds", "val_fold"})
            alike[key] = [*alike.pop(key, []), run]
    shown = {_name_of(group[-1]): group for group in alike.values()}
    others = sorted({run.config.dataset for run in runs} - {known.name})
    problems += [f"runs of {name} are there too" for name in others]
    if older := sum(map(len, alike.values())) - sum(map(len, shown.values())):
        problems.append(f"fits of other epochs, threads or versions than the last are not shown: {older}")
    problems += map(str, errors)
    found_experiments = [_experiment_of(shown[name], store, known.folds) for name in sorted(shown)]
    rotations, rest = _with_rotations(found_experiments, known, {run.config.fit_id for run in chain(*shown.values())})
    test_fold = mode(each.test_fold for each in rest) if rest else 0
    on_it = [*rotations, *(each for each in rest if each.test_fold == test_fold)]
    experiments = _read_results(on_it, known, problems)
    checks = _read_results([each for each in rest if each.test_fold != test_fold], known, problems)
    told = tuple(dict.fromkeys(problems))
    return Gathered(store, known, experiments, checks, problems=told, recordings=dataset or "")


def _name_of(run: Run) -> tuple[str, int, int, str]:
    config = run.config
    return config.model_label, config.test_fold, config.seed, config.recipe_settings.model_dump_json()


def _experiment_of(runs: Sequence[Run], store: RunStore, folds: Sequence[int]) -> Experiment:
    """The experiment that these fits belong to: a split if the only one validates on the fold after the test fold.

    An own architecture is the one in the run folder's ``model.py``, whose code this runs.
    """
    run, config = runs[-1], runs[-1].config
    model = f"{run.path / MODEL}:{config.model}" if run.is_own else config.model
    settings = config.model_dump(include=set(Experiment.model_fields)) | {"model": model, "runs_dir": store.runs_dir}
    settings["recipe_changes"] = changed_settings(config.recipe_settings, config.recipe, model)
    pairs = [(run.config.val_fold, run.config.test_fold) for run in runs]
    split = Experiment(**settings, protocol="split")
    return split if pairs == split.fold_pairs(folds) else split.changed(protocol="kfold")


def _with_rotations(
    experiments: Sequence[Experiment], dataset: KnownDataset, there: set[str]
) -> tuple[list[Experiment], list[Experiment]]:
    """The rotations all of whose fits are there, and the experiments that are not a part of one.

    Args:
        there: ids of the fits.
    """
    rotations, parts = list[Experiment](), set[str]()
    for experiment in experiments:
        whole = experiment.changed(protocol="rotation")
        ids = _fit_ids(whole, dataset)
        if ids <= there and not ids <= parts:
            rotations.append(whole)
            parts |= ids
    return rotations, [each for each in experiments if not _fit_ids(each, dataset) <= parts]


def _fit_ids(experiment: Experiment, dataset: KnownDataset) -> set[str]:
    return {config.fit_id for config in experiment.fits(dataset)}
