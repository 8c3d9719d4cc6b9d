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
    dataset, _, name = str(which).rpartition("/")
    folders = [Path(runs_dir)] if runs_dir else [DEFAULT_RUNS_DIR, PUBLISHED_DIR]
    for folder in folders:
        runs = [run for run in RunStore(folder).find() if dataset in ("", run.config.dataset)]
        found = _best(runs) if name == "best" else _called(runs, name)
        if len(found) > 1:
            some = ", ".join([*found][:MAX_NAMES]) + ", ..." * (len(found) > MAX_NAMES)
            raise InputError(f"{which} stands for several things in {folder}; say which: {some}")
        if found:
            return next(iter(found.values()))
    if name == "best":
        where = " or ".join(map(str, folders))
        raise InputError(f"no fit in {where} has weights; train one with `audioclf run cnn-split`")
    return [load_run(which, runs_dir)]


def choose_fit(which: Path | str, runs_dir: Path | str | None = None) -> Run:
    """The one fit that a name stands for, see ``choose_runs``.

    Raises:
        InputError: as there, or the name is that of an experiment with several fits.
    """
    runs = choose_runs(which, runs_dir)
    if len(runs) > 1:
        ids = ", ".join(run.config.fit_id for run in runs)
        raise InputError(f"{which} has {len(runs)} fits; name one of them: {ids}")
    return runs[0]


def _best(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The best fit with weights on each data set."""
    usable = [run for run in runs if run.has_weights]
    datasets = dict.fromkeys(run.config.dataset for run in usable)
    return {f"{name}/best": [best_fit([run for run in usable if run.config.dataset == name])] for name in datasets}


def _called(runs: Sequence[Run], beginning: str) -> dict[str, list[Run]]:
    """The fits with weights of every fit and experiment whose name is this, or begins so up to a hyphen."""
    experiments: dict[tuple[str, str, int], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.config.test_fold, run.config.val_fold)):
        config = run.config
        alike = config.model_dump_json(exclude={"train_folds", "val_fold", "test_fold"})
        keys = [("kfold", alike, config.test_fold)]
        if (config.val_fold, config.test_fold) in rotation(config.known_dataset.folds):
            keys += [("split", alike, config.test_fold), ("rotation", alike, 0)]
        for key in keys:
            experiments.setdefault(key, []).append(run)
    named = [(run.config.fit_id, [run]) for run in runs]
    for (protocol, *_), fits in experiments.items():
        config, ids = fits[0].config, digest(" ".join(run.config.fit_id for run in fits))
        settings = f"seed{config.seed}-{config.recipe}-e{config.epochs}"
        named.append((f"{config.model_label}-{protocol}-{settings}-{ids}", fits))
    meant = {
        f"{fits[0].config.dataset}/{name}": [run for run in fits if run.has_weights]
        for name, fits in named
        if f"{name}-".startswith(f"{beginning}-")
    }
    return {name: fits for name, fits in meant.items() if fits}
