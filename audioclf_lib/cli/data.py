"""``audioclf init`` and ``data``: what comes before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audioclf_lib._support.paths import user_path


def init(
    folder: Annotated[Path, typer.Argument(help="Made where it is missing.")],
) -> None:
    """Lay a course folder with notebooks, plans and texts to change; what is there already stays as it is."""
    from audioclf_lib.cli.tables import show, shown_path
    from audioclf_lib.suite.course import lay_course

    folder = user_path(folder).absolute()
    written, kept = lay_course(folder)
    show(f"course folder: {shown_path(folder)}; {len(written)} files written, {len(kept)} left as they were")


def data(
    name_or_path: Annotated[
        str, typer.Argument(help="demo, esc10, a folder with recordings, a zip of one, or a labels.csv.")
    ] = "demo",
    make_folds: Annotated[
        int | None, typer.Option(metavar="N", help="Make N folds anew, for recordings without.", show_default="5")
    ] = None,
    source_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Make folds anew; what it finds in a file's name is the clip's source.",
        ),
    ] = None,
) -> None:
    """Load and check a data set (downloading esc10 if there is no copy), and say what it holds and what is odd."""
    from audioclf_lib.cli.tables import dataset_table, oddity_table, show
    from audioclf_lib.data import DEFAULT_DATA_DIR, find_oddities, load_dataset
    from audioclf_lib.suite.plan import resolve_dataset

    dataset = load_dataset(resolve_dataset(name_or_path), make_folds=make_folds, source_pattern=source_pattern)
    show(dataset_table(dataset, DEFAULT_DATA_DIR))
    show(oddity_table(find_oddities(dataset)))
