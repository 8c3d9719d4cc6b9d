"""Several fits of a notebook, side by side in processes of their own.

A fit trains on its own number of threads wherever it runs, so its numbers are the same as one after another. Two fits
on two cores take little longer than one, while one fit on two threads is far from twice as fast.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from audioclf_lib._support.choices import LogName
from audioclf_lib._support.cores import usable_cores
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR
from audioclf_lib.config import FitConfig
from audioclf_lib.data import Dataset
from audioclf_lib.models import find_model
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.training.environment import choose_device
from audioclf_lib.training.loggers import Logger
from audioclf_lib.training.trainer import Progress, fit, model_of

# Set to 1 where notebooks run side by side, as in a suite: then each trains one fit at a time.
PROCESSES = "AUDIOCLF_PROCESSES"


def fit_all(
    configs: Sequence[FitConfig],
    dataset: Dataset,
    *,
    runs_dir: Path | str = DEFAULT_RUNS_DIR,
    device: str = "auto",
    progress: Progress | None = None,
    processes: int | None = None,
    log: LogName = "none",
) -> list[Run]:
    """Train fits that are not there yet, as :func:`audioclf_lib.training.trainer` does, several at once.

    Args:
        configs, dataset, runs_dir, device, progress: as of ``fit``; ``progress`` is called in this process.
        processes: fits at once; unless given, what the environment variable ``AUDIOCLF_PROCESSES`` says, else as many
            as there are cores for their threads, and one on a GPU.
        log: where epochs and final figures are logged, see :mod:`audioclf_lib.training.loggers`.

    Returns:
        The finished runs, in the order of ``configs``. If a process is killed, they are trained one after another.

    Raises:
        InputError: as of ``fit``; the other fits are stopped then and go on from their checkpoints when asked for. Or
            what ``log`` needs is not installed.
    """
    store = RunStore(runs_dir)
    logger = Logger(log, store.runs_dir, progress)
    missing = [config for config in configs if not store.is_whole(config)]
    if processes is None:
        on_cpu = choose_device(device).type == "cpu"
        shares = usable_cores() // max((config.threads for config in missing), default=1)
        processes = int(os.environ.get(PROCESSES) or (max(1, shares) if on_cpu else 1))
    train = partial(fit, dataset=dataset, runs_dir=runs_dir, device=device, progress=logger)
    with closing(logger):
        if min(processes, len(missing)) > 1:
            options = {"dataset": dataset, "runs_dir": Path(runs_dir), "device": device}
            failed = _train_side_by_side(missing, options, logger, processes)
            if failed is not None:
                train(failed)  # raises its error here
        runs = [train(config) for config in configs]
        logger.finish(runs)
    return runs


def _train_side_by_side(
    configs: Sequence[FitConfig], options: dict[str, Any], progress: Progress, processes: int
) -> FitConfig | None:
    """Train all fits; the first whose process fails or is killed ends the others and is returned."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    waiting = list(configs)
    running: dict[Any, tuple[FitConfig, BaseProcess]] = {}
    on_step = getattr(progress, "step", None)
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                config = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                entry = model_of(config)
                source = f"{entry.source}:{entry.name}" if entry.is_own else entry.name
                work = config, source, options, sender
                process: BaseProcess = context.Process(target=_work, args=work, daemon=True)
                process.start()
                sender.close()
                running[receiver] = (config, process)
            ready: list[Any] = wait(list(running))
            for end in ready:
                config, process = running[end]
                try:
                    history, share = end.recv()
                except EOFError:
                    process.join()
                    del running[end]
                    if process.exitcode != 0:
                        return config
                    continue
                if share is None:
                    progress(config, history)
                elif on_step is not None:
                    on_step(config, history, share)
        return None
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _work(config: FitConfig, source: str, options: dict[str, Any], sender: Connection) -> None:
    """One fit in its own process. When the one that started it has ended, nobody reads, and sending fails."""

    class Report:
        """Sends to the starting process what ``progress`` would be told here."""

        def __call__(self, _: FitConfig, history: list[dict[str, float]], share: float | None = None) -> None:
            sender.send((history, share))

        step = __call__

    try:
        find_model(source)
        fit(config, progress=Report(), **options)
    except BaseException:  # raised and shown where the fit goes on
        sys.exit(1)
