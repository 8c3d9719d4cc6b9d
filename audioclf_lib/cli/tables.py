"""What the commands show in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from audioclf_lib._support.durations import describe_seconds
from audioclf_lib._support.errors import one_line
from audioclf_lib.suite.jobs import Job, Outcome, describe_accuracy
from audioclf_lib.suite.notebooks import failed_path, read_progress

if TYPE_CHECKING:
    from audioclf_lib.data import Dataset
    from audioclf_lib.inference import Prediction
    from audioclf_lib.suite.search import StudyResult

MAX_NAMES = 5  # of clips that are odd alike


def show(what: RenderableType) -> None:
    """Print a table or a line; a line is never broken and holds no markup."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    if isinstance(what, str):
        console.print(what, highlight=False, soft_wrap=True, markup=False)
    else:
        console.print(what)


@contextmanager
def live_lines(lines: Callable[[], str]) -> Iterator[None]:
    """Keep showing lines that change below what is printed, in a terminal; elsewhere nothing."""
    if not sys.stdout.isatty():
        yield
        return
    with Live(get_renderable=lambda: Text(lines()), refresh_per_second=2, transient=True):
        yield


def shown_path(path: Path) -> str:
    """A path as the user would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[str] = ()) -> Table:
    """A table whose first column and ``texts`` hold words, and whose other columns hold numbers."""
    table = Table(title=escape(title), box=box.SIMPLE, title_justify="left", show_header=any(columns))
    for name in columns:
        is_text = name == columns[0] or name in texts
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def dataset_table(dataset: Dataset, data_dir: Path) -> Table:
    """What a data set holds."""
    folds = sorted({int(fold) for fold in dataset.folds})
    n_silent, n_windows = int(dataset.silent.sum()), dataset.silent.size
    rows = {
        "what": dataset.description,
        "clips": f"{len(dataset)} of {dataset.waveforms.shape[1] / dataset.sample_rate:g} s",
        "classes": f"{len(dataset.class_names)}: {', '.join(dataset.class_names)}",
        "clips per fold": ", ".join(f"{fold}: {int((dataset.folds == fold).sum())}" for fold in folds),
        "windows": f"{dataset.silent.shape[1]} per clip, {n_windows} in all",
        "silent windows": f"{n_silent} ({100 * n_silent / n_windows:.1f} %)",
        "fingerprint": dataset.fingerprint,
        "licence": dataset.licence,
        "kept in": str(data_dir),
    }
    return _table(f"Data set {dataset.name}", ("", ""), list(rows.items()))


def oddity_table(oddities: dict[str, list[str]]) -> Table:
    """What is odd about a data set, with the first names of each kind."""
    rows = []
    for what, names in oddities.items():
        shown = names[:MAX_NAMES] + [f"and {len(names) - MAX_NAMES:,} more"] * (len(names) > MAX_NAMES)
        rows.append((what, f"{len(names):,}", "\n".join(one_line(name) for name in shown)))
    return _table("What is odd" if rows else "Nothing is odd", ("", "how many", "which"), rows, texts=("which",))


def describe_rest(outcomes: Sequence[Outcome], seconds: float | None, at_once: int) -> str:
    """What is left of a suite, and how long that takes by the fits that are finished."""
    counts = f"{sum(each.state != 'done' for each in outcomes)} of {len(outcomes)} runs are to do"
    if trained := sum(each.state == "trained" for each in outcomes):
        counts += f", of which {trained} only {'lacks its notebook' if trained == 1 else 'lack their notebooks'}"
    if seconds is None:
        return f"{counts}; the time left is known when a fit is trained"
    if not seconds:
        return counts
    runs = "1 run" if at_once == 1 else f"{at_once} runs"
    return f"{counts}; about {describe_seconds(seconds / at_once)} of training left with {runs} at a time"


def describe_running(jobs: Sequence[Job]) -> str:
    """A line or more for each running notebook."""
    return "\n".join(f"{job.title}: {read_progress(job.output) or 'running'}" for job in jobs)


def suite_table(outcomes: Sequence[Outcome]) -> Table:
    """How the runs of a suite ended, with their scores."""
    rows = [
        (
            outcome.job.title,
            outcome.state,
            describe_seconds(outcome.status.seconds) if outcome.status else "–",
            f"{outcome.fits_done}/{len(outcome.job.fits)}",
            describe_accuracy(outcome.accuracy.get("window")),
            describe_accuracy(outcome.accuracy.get("clip")),
        )
        for outcome in outcomes
        if outcome.job.fits and not (outcome.job.for_others and outcome.state == "done")
    ]
    title = "Accuracy on the test fold (mean ± standard deviation over the fits)"
    return _table(title, ("experiment", "status", "time", "fits", "windows", "clips"), rows, texts=("status",))


def failure_table(failures: Sequence[Outcome]) -> Table:
    """What is not done, and why."""
    rows = []
    for outcome in failures:
        cell, what = "", "was not started"
        if outcome.state == "failed" and (status := outcome.status):
            cell = f"[{status.cell}]" if status.cell is not None else ""
            what = f"{status.error}: {status.message}"
            if failed_path(outcome.job.output).exists():
                what += f"\nsee {shown_path(failed_path(outcome.job.output))}"
        elif outcome.state == "stopped":
            what = "stopped before it was done; run the same command again to go on"
        rows.append((outcome.job.title, cell, what))
    return _table("Not done", ("notebook", "cell", "what happened"), rows, texts=("cell", "what happened"))


def study_table(found: StudyResult) -> Table:
    """The trials of a study, the best first."""
    rows = []
    for row in found.table.to_dict(orient="records"):
        shares = (row["accuracy"], row["clip_accuracy"])
        shown = ("–" if share != share else f"{100 * share:.1f} %" for share in shares)
        settings = ", ".join(f"{name} {row[name]}" for name in found.config.search)
        rows.append((str(row["trial"]), row["state"], str(row["epochs"]), *shown, settings))
    columns = ("trial", "state", "epochs", "windows", "clips", "settings")
    return _table("Accuracy on the validation fold, the best first", columns, rows, texts=("state", "settings"))


def answers_table(found: Prediction, *, windows: bool) -> Table:
    """The three likeliest classes of each sound or window."""
    top, silent = found.top(windows=windows).reset_index(), found.table(windows=windows)["silent"]
    top["file"] = top["file"].mask(top["file"].duplicated(), "")  # once, above its windows
    cells = top.assign(silent=silent.map({True: "silent", False: ""})).to_numpy()
    rows = [[one_line(str(cell)) for cell in row] for row in cells]
    places = ("answer", "second", "third", "")
    return _table(f"By {', '.join(found.fits)}", ("file", *(["start"] * windows), *places), rows, texts=places)
