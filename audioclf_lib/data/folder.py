"""Your own audio: a folder with sound files and a ``labels.csv``."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from audioclf_lib._support.errors import InputError
from audioclf_lib.data.audio import decoded_length
from audioclf_lib.data.dataset import SAMPLE_RATE, check_clips
from audioclf_lib.data.listing import Listing, list_files
from audioclf_lib.data.tables import file_column, int_column, read_table
from audioclf_lib.data.windowing import HOP_SIZE, WINDOW_SIZE, count_windows

TABLE = "labels.csv"
REQUIRED = ("filename", "label", "fold")

# Unless told otherwise, clips are not made longer than this.
MAX_DEFAULT_SECONDS = 30
MAX_SECONDS = 600

RESERVED_NAMES = ("demo", "esc10", "esc50", "esc50-esc10")


def list_folder(folder: Path, *, clip_seconds: float | None = None, with_folds: Collection[int] = ()) -> Listing:
    """Your own recordings, as ``labels.csv`` lists them: ``filename, label, fold`` and, if you like, ``source``.

    Sound files may have any sample rate, channel count and length. Classes are ordered by name. Clips cut from one
    recording share a ``source``, so that they can be kept in one fold; without it every file is its own.

    Args:
        folder: with ``labels.csv``, which names files relative to the folder.
        clip_seconds: length to which all clips are trimmed or zero-padded; by default the whole windows of the
            longest clip, at least one window (1 s) and at most 30 s.
        with_folds: folds that must be there.

    Raises:
        InputError: the table, a file or the length cannot be used.
    """
    path = folder / TABLE
    table = read_table(path, REQUIRED)
    unlabelled = table[(table["label"] == "") | (table["filename"] == "")]
    if len(unlabelled):
        raise InputError(f"{path}, line {unlabelled.index[0]}: filename or label is empty; fill it in or drop the line")
    filenames = file_column(path, table["filename"])
    class_names = sorted(set(table["label"]))
    sources = table["source"].tolist() if "source" in table else [""] * len(table)
    clips = pd.DataFrame(
        {
            "path": [folder / name for name in filenames],
            "clip_id": filenames,
            "label": [class_names.index(label) for label in table["label"]],
            "fold": int_column(path, table["fold"]),
            "source": [source or name for source, name in zip(sources, filenames, strict=True)],
        }
    )
    name = folder_name(folder)
    check_clips(name, clips, class_names, with_folds=with_folds)
    return list_files(
        name,
        clips,
        class_names,
        clip_samples(clips["path"].tolist(), clip_seconds),
        description=f"{folder.resolve().name}: own recordings",
        licence="not given",
    )


def folder_name(folder: Path) -> str:
    """A folder's name as lower-case letters, digits and hyphens, different from the built-in data sets' names."""
    slug = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    return slug if slug and slug not in RESERVED_NAMES else f"folder-{slug}".strip("-")


def clip_samples(paths: list[Path], clip_seconds: float | None) -> int:
    """Length of all clips in samples at 16 kHz: as asked, or as many whole windows as the longest file has.

    Raises:
        InputError: a length below one window or beyond ten minutes, or a file that cannot be read.
    """
    if clip_seconds is not None:
        if not WINDOW_SIZE / SAMPLE_RATE <= clip_seconds <= MAX_SECONDS:
            raise InputError(
                f"clip_seconds = {clip_seconds} is not possible; "
                f"choose {WINDOW_SIZE / SAMPLE_RATE:g} (one window) to {MAX_SECONDS} seconds"
            )
        return round(clip_seconds * SAMPLE_RATE)
    longest = min(max(map(decoded_length, paths)), MAX_DEFAULT_SECONDS * SAMPLE_RATE)
    return WINDOW_SIZE + (count_windows(max(longest, WINDOW_SIZE)) - 1) * HOP_SIZE
