"""Folds for recordings that come without: stratified by class, all clips of a source in one fold."""

from __future__ import annotations

import re
import warnings
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from audioclf_lib._support.digests import digest
from audioclf_lib._support.errors import InputError, quote
from audioclf_lib._support.paths import replace_file
from audioclf_lib.data.dataset import MIN_FOLDS, Listing, hash_files
from audioclf_lib.data.tables import LABEL_COLUMNS, number_column, read_table

DEFAULT_FOLDS = 5
ATTEMPTS = 20  # seeds that are tried until every fold has a clip of every class


def give_folds(
    slug: str, clips: pd.DataFrame, folder: Path, n_folds: int | None, source_pattern: str | None
) -> tuple[pd.DataFrame, Path]:
    """Give clips folds: those that were kept for them, or new ones where there are none or some are asked for.

    Args:
        slug: what the data set's name begins with.
        clips: a row for each clip, with ``clip_id``, ``path``, ``label`` and perhaps ``source``.
        folder: where folds are kept.
        n_folds: how many to make; five unless given.
        source_pattern: regular expression whose first group, or whole match, in a file's name is the clip's source.

    Returns:
        The clips with ``fold``, ``source`` and ``sha256``, and the path under which ``keep_folds`` keeps them.

    Raises:
        InputError: a class with too few sources, a pattern that cannot be used, or kept folds of other clips.
    """
    clips = clips.assign(sha256=hash_files(clips["path"]))
    content = clips.drop(columns="path").to_numpy().tolist()
    path = folder / f"{slug}-{digest(content, 16)}.csv"
    if n_folds is None and source_pattern is None and path.is_file():
        table = read_table(path, LABEL_COLUMNS)
        table["fold"] = number_column(path, table["fold"])
        if sorted(table["filename"]) != sorted(clips["clip_id"]):
            raise InputError(f"{path} does not list the clips of {slug}, each once; delete it to have folds made anew")
        kept = table.set_index("filename").loc[clips["clip_id"]]
        return clips.assign(fold=kept["fold"].to_numpy(), source=kept["source"].to_numpy()), path
    if source_pattern is not None:
        clips["source"] = _find_sources(clips["clip_id"], source_pattern)
    elif "source" not in clips:  # every file is its own, but two with the same content are one
        clips["source"] = clips.groupby("sha256")["clip_id"].transform("first")
    return clips.assign(fold=make_folds(slug, clips, DEFAULT_FOLDS if n_folds is None else n_folds)), path


def make_folds(slug: str, clips: pd.DataFrame, n_folds: int) -> np.ndarray:
    """Folds 1 to ``n_folds``, the same for the same clips: (n_clips,) int64."""
    from sklearn.model_selection import StratifiedGroupKFold

    sources = clips.groupby("label")["source"].nunique()
    small, most = sources[sources < n_folds], int(sources.min()) if len(sources) else 0
    if n_folds < MIN_FOLDS or most < MIN_FOLDS or len(small):
        few = ", ".join(f"{quote(label)} has {count}" for label, count in small.items())
        fewer = f"; or make {most} folds with `audioclf data FOLDER --make-folds {most}`" if most >= MIN_FOLDS else ""
        needed = max(n_folds, MIN_FOLDS)
        raise InputError(
            f"{slug} cannot have {n_folds} folds: each class needs {needed} recordings, but {few or 'there are few'}; "
            f"add recordings or leave the class out{fewer}"
        )
    folds = np.zeros(len(clips), np.int64)
    for seed in range(ATTEMPTS):
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        for fold, (_, chosen) in enumerate(splitter.split(clips, clips["label"], clips["source"]), start=1):
            folds[chosen] = fold
        if pd.crosstab(clips["label"], folds).gt(0).to_numpy().sum() == len(sources) * n_folds:
            return folds
    raise InputError(f"{slug} cannot have {n_folds} folds with every class in each, as its sources are; make fewer")


def _find_sources(files: pd.Series[str], pattern: str) -> pd.Series[str]:
    names = files.map(lambda file: PurePosixPath(file).name)
    try:
        sources = names.str.extract(pattern if re.compile(pattern).groups else f"({pattern})").iloc[:, 0]
    except re.error as error:
        raise InputError(
            f"the source pattern {quote(pattern)} is no regular expression ({error}); correct it"
        ) from None
    for file in files[sources.fillna("") == ""]:
        raise InputError(f"the source pattern {quote(pattern)} finds nothing in {quote(file)}; widen it")
    return sources


def keep_folds(listing: Listing, path: Path) -> None:
    """Write folds that were made into a table like ``labels.csv``, and say so where it is new."""
    labels = [listing.class_names[label] for label in listing.clips["label"]]
    table = listing.clips.assign(filename=listing.clips["clip_id"], label=labels)[list(LABEL_COLUMNS)]
    content = table.to_csv(index=False, lineterminator="\n").encode()
    if path.is_file() and path.read_bytes() == content:
        return
    how = f"{len(set(listing.folds))} folds were made for {listing.slug}, stratified by class"
    if table["source"].is_unique:
        how += "; every file counts as a recording of its own, so if several were cut from one, give --source-pattern"
    try:
        replace_file(path, content)
        warnings.warn(f"{how}; they are kept in {path}", stacklevel=3)
    except OSError as error:
        warnings.warn(f"{how}; they could not be kept in {path} ({error.strerror or error})", stacklevel=3)
