"""Your own audio: a folder with sound files and a ``labels.csv``."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pandas as pd

from audioclf_lib._support.errors import one_line
from audioclf_lib.data.dataset import Listing
from audioclf_lib.data.tables import check_column, file_column, number_column, read_table

TABLE = "labels.csv"

RESERVED_SLUGS = ("demo", "esc10", "esc50", "esc50-esc10")
MAX_SLUG = 60  # characters; file systems allow names of 255 bytes, and a character takes up to four


def list_folder(folder: Path, *, clip_seconds: float | None = None) -> Listing:
    """Your own recordings, as ``labels.csv`` lists them: ``filename, label, fold`` and, if you like, ``source``.

    Sound files may have any sample rate, channel count and length. Classes are ordered by name. Clips cut from one
    recording share a ``source``, so that they can be kept in one fold; without it every file is its own source.

    Args:
        folder: with ``labels.csv``, which names files relative to the folder.
        clip_seconds: length to which all clips are trimmed or zero-padded, see ``Listing``.

    Raises:
        InputError: the table, a file or the length cannot be used.
    """
    path = folder / TABLE
    table = read_table(path, ("filename", "label", "fold"))
    for column in ("filename", "label"):
        check_column(path, table[column], bool, "{} is empty; fill it in or drop the line")
    files = file_column(path, table["filename"])
    sources = table.get("source", files)
    clips = pd.DataFrame({"clip_id": files, "label": table["label"], "fold": number_column(path, table["fold"])})
    clips["path"] = files.map(lambda file: folder / file)
    clips["source"] = sources.where(sources != "", files)
    return Listing(
        folder_slug(folder),
        clips,
        sorted(set(table["label"])),
        clip_seconds=clip_seconds,
        description=f"{one_line(folder.resolve().name)}: own recordings",
        licence="not given",
    )


def folder_slug(folder: Path) -> str:
    """What the name of a folder's data set begins with: letters and digits of any script in lower case, and hyphens.

    Different from the names of the built-in data sets.
    """
    name = unicodedata.normalize("NFC", folder.resolve().name.lower())
    # Letters, their combining marks, and decimal digits; ``\w`` of Python's regular expressions lacks the marks.
    kept = [c if unicodedata.category(c) == "Nd" or unicodedata.category(c)[0] in "LM" else " " for c in name]
    slug = "-".join("".join(kept).split())[:MAX_SLUG].strip("-")
    if not slug:
        return "folder"
    return f"folder-{slug}" if slug in RESERVED_SLUGS else slug
