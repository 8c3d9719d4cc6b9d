"""Which fits answer: that of a run folder, one by its id, all of an experiment, or the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from audioclf_lib._support.digests import digest
from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PUBLISHED_DIR, user_path
from audioclf_lib.config import rotation
from audioclf_lib.metrics.scores import best_fit
from audioclf_lib.runs.store import CONFIG, Run, RunStore, load_run

MAX_NAMES = 6  # that a message lists


def choose_runs(which: Run | Path | str | Iterable[Run], runs_dir: Path | str | None = None) -> list[Run]:
    """The fits that a name stands for; of an experiment those that have weights.

    Args:
        which: a run, or several; a run folder; the id of a fit; an experiment, by the name of its executed notebook or
            the beginning of it (``cnn-kfold``, ``cnn-kfold-seed1``); or ``best``, the fit with the highest validation
            score. A data set's name may stand before it: ``esc10/best``.
        runs_dir: where names are searched; unless given, in ``report/runs``, then in ``report/published``.

    Raises:
        InputError: the name stands for nothing, or for several things; or runs that tell other classes apart.
    """
    if isinstance(which, Run):
        return [which]
    if not isinstance(which, (str, Path)):
        runs = list(which)
        if len({run.config.class_names for run in runs}) != 1:
            raise InputError("runs vote together if they tell the same classes apart; give one or more such runs")
        return runs
    if (user_path(which) / CONFIG).is_file():
        return [load_run(which)]
    stores = [RunStore(folder) for folder in ([runs_dir] if runs_dir else [DEFAULT_RUNS_DIR, PUBLISHED_DIR])]
    for store in stores:
        names = _names(store.find())
        found = {name: fits for name, fits in names.items() if _is_meant(str(which), name)}
        if len(found) > 1:
            some = ", ".join(list(found)[:MAX_NAMES]) + (", ..." if len(found) > MAX_NAMES else "")
            raise InputError(f"{which} stands for several things in {store.runs_dir}; say which: {some}")
        if found:
            return next(iter(found.values()))
    if which == "best":
        where = " or ".join(str(store.runs_dir) for store in stores)
        raise InputError(f"no fit in {where} has weights; train one with `audioclf run cnn-split`")
    return [load_run(which, runs_dir)]


def _is_meant(which: str, name: str) -> bool:
    """True for the whole name with or without its data set, or for the beginning of it up to a hyphen."""
    return any(f"{each}-".startswith(f"{which}-") for each in (name, name.partition("/")[2]))


def _names(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The fits with weights by what they may be called: their ids, their experiments, and the best on each data set."""
    experiments: dict[tuple[object, ...], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.config.test_fold, run.config.val_fold)):
        config = run.config
        alike = config.model_dump_json(exclude={"train_folds", "val_fold", "test_fold"})
        keys: list[tuple[object, ...]] = [("kfold", alike, config.test_fold)]
        if (config.val_fold, config.test_fold) in rotation(config.known_dataset.folds):
            keys += [("split", alike, config.test_fold), ("rotation", alike)]
        for key in keys:
            experiments.setdefault(key, []).append(run)
    found = {f"{run.config.dataset}/{run.config.fit_id}": [run] for run in runs}
    for (protocol, *_), fits in experiments.items():
        config, ids = fits[0].config, digest(" ".join(run.config.fit_id for run in fits))
        name = f"{config.model_label}-{protocol}-seed{config.seed}-{config.recipe}-e{config.epochs}-{ids}"
        found[f"{config.dataset}/{name}"] = fits
    usable = {name: [run for run in fits if run.has_weights] for name, fits in found.items()}
    for dataset in sorted({run.config.dataset for run in runs}):
        if of_dataset := [run for run in runs if run.config.dataset == dataset and run.has_weights]:
            usable[f"{dataset}/best"] = [best_fit(of_dataset)]
    return {name: fits for name, fits in usable.items() if fits}
