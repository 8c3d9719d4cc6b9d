"""Your own audio: sound files in a folder, with a table of labels or in a folder for each class."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from audioclf_lib._support.errors import InputError, one_line
from audioclf_lib.data.audio import SOUND_NAME
from audioclf_lib.data.dataset import Listing
from audioclf_lib.data.folds import give_folds
from audioclf_lib.data.tables import label_column, read_labels

TABLE = "labels.csv"
# A folder of such a name below a class is no class.
PARTS = re.compile(r"(train|test|val|dev|eval)\w*|fold\W?\d+", re.IGNORECASE)

RESERVED_SLUGS = ("demo", "esc10", "esc50", "esc50-esc10")
MAX_SLUG = 60  # characters; file systems allow names of 255 bytes, and a character takes up to four


def list_folder(
    place: Path,
    *,
    home: Path,
    folds_dir: Path,
    clip_seconds: float | None = None,
    make_folds: int | None = None,
    source_pattern: str | None = None,
) -> Listing:
    """Your own recordings, as a table lists them, or in a folder for each class.

    Sound files may have any sample rate, channel count and length. Classes are ordered by name. Clips cut from one
    recording share a ``source``, so that they can be kept in one fold; without it every file is its own source.

    Args:
        place: a table that names files relative to its folder, or a folder that holds those of the classes.
        home: the folder that the data set is named after.
        folds_dir: where folds are kept that are made for recordings without.
        clip_seconds: length to which all clips are trimmed or zero-padded, see ``Listing``.
        make_folds, source_pattern: see ``load_dataset``.

    Raises:
        InputError: the table, a file or the length cannot be used.
    """
    clips = read_labels(place) if place.is_file() else read_class_folders(place)
    slug, made, how = folder_slug(home), None, ""
    if "fold" not in clips:
        clips, made = give_folds(slug, clips, folds_dir, make_folds, source_pattern)
        how = f", in {clips['fold'].nunique()} folds that were made, stratified by class"
    elif make_folds is not None or source_pattern is not None:
        raise InputError(f"{place} has folds; take out its column fold to have some made")
    return Listing(
        slug,
        clips if "source" in clips else clips.assign(source=clips["clip_id"]),
        sorted(set(clips["label"])),
        clip_seconds=clip_seconds,
        description=f"{one_line(home.resolve().name)}: own recordings{how}",
        licence="not given",
        made_folds=made,
    )


def read_class_folders(folder: Path) -> pd.DataFrame:
    """The sound files below a folder, each labelled by the folder that it lies in.

    Other files are passed over, and folders like ``_background_noise_`` of Speech Commands, see ``sound_files``.

    Returns:
        a row for each clip, with ``clip_id``, ``path`` and ``label``.

    Raises:
        InputError: it cannot be told which folders are classes.
    """
    paths = list(sound_files(folder))
    folders = {path.parent for path in paths}
    remedy = f"put each sound into the folder of its class, or write a {TABLE} with the columns filename, label"
    for each in sorted(folders):
        if each == folder or not folders.isdisjoint(each.parents):
            raise InputError(f"{each} holds sounds, but is not the folder of one class alone; {remedy}")
        if PARTS.fullmatch(each.name):
            raise InputError(f"{each} holds sounds, but its name is no class's; {remedy}")
    clip_ids = [path.relative_to(folder).as_posix() for path in paths]
    labels = label_column(folder, pd.Series([path.parent.name for path in paths], dtype=object))
    return pd.DataFrame({"clip_id": clip_ids, "path": paths, "label": labels})


def sound_files(folder: Path) -> Iterator[Path]:
    """The files below a folder that are sounds by their names, in order; not in folders like ``.x`` and ``_x``."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        yield from (Path(place, name) for name in sorted(files) if SOUND_NAME.fullmatch(name) and name[0] != ".")


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
