"""Data sets: ESC-10, ESC-50, UrbanSound8K, your own folder, and a generated one for demonstration.

torch is imported only where clips are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import DEFAULT_DATA_DIR, explained, user_path
from audioclf_lib.config import KnownDataset, refuse_missing_folds
from audioclf_lib.data.dataset import FIXED_CONTENT, Dataset, Listing
from audioclf_lib.data.demo import FOLDS, load_demo
from audioclf_lib.data.download import unpack
from audioclf_lib.data.esc import find_esc10, list_esc10, locate_esc10
from audioclf_lib.data.folder import TABLE, folder_slug, list_folder, sound_files
from audioclf_lib.data.folds import keep_folds
from audioclf_lib.data.oddities import find_oddities
from audioclf_lib.data.published import ESC50, URBANSOUND8K, list_published

__all__ = ["DEFAULT_DATA_DIR", "Dataset", "dataset_facts", "dataset_slug", "find_oddities", "load_dataset"]

OPTION = re.compile(r"(.+):(esc10|\d+(?:\.\d+)?s)")
PUBLISHED = {layout.slug: layout for layout in (ESC50, URBANSOUND8K)}


def load_dataset(
    name_or_path: str | Path = "demo",
    *,
    with_folds: Collection[int] = (),
    data_dir: Path | None = None,
    make_folds: int | None = None,
    source_pattern: str | None = None,
) -> Dataset:
    """Load a data set by its name or from a folder, a zip archive of one, or a table of labels.

    Folds are made for recordings that have none, kept in ``data_dir/folds`` and used from then on, also by notebooks
    and suites: stratified by class, with all clips of a source in one fold.

    Args:
        name_or_path: ``"demo"`` (generated); ``"esc10"`` (from AUDIOCLF_DATA or ``data_dir``, else downloaded); or a
            folder: a copy of ESC-10, ESC-50 or UrbanSound8K, your own with a ``labels.csv``, or one that holds a folder
            for each class. ``"/path/to/ESC-50:esc10"`` takes only the ten classes of ESC-10; ``"/path/to/folder:4s"``
            sets the length of the clips of your own folder, by default the whole windows of the longest clip, at least
            1 s and at most 30 s.
        with_folds: folds that the caller needs; if one is missing, no file is decoded.
        data_dir: for downloads, decoded clips and folds; the project's ``data`` folder unless given.
        make_folds: make so many folds anew for recordings that have none of their own; five unless given.
        source_pattern: make folds anew; this regular expression finds a clip's source in its file's name, as the first
            group or the whole match. Otherwise it is what the column ``source`` says, or each file is its own.

    Raises:
        InputError: unknown name, missing folder or fold, or data that cannot be used.
    """
    data_dir = data_dir or DEFAULT_DATA_DIR
    found = _find_dataset(name_or_path, with_folds, data_dir, make_folds=make_folds, source_pattern=source_pattern)
    if isinstance(found, Dataset):
        return found
    dataset = found.decode(data_dir)
    if found.made_folds:
        keep_folds(found, found.made_folds)
    return dataset


def dataset_facts(name_or_path: str | Path, *, with_folds: Collection[int] = ()) -> KnownDataset:
    """Name, fingerprint, folds and classes of the data set that ``load_dataset`` gives; files are hashed, not decoded.

    Raises:
        InputError: as ``load_dataset``, except for faults that only decoding finds.
    """
    found = _find_dataset(name_or_path, with_folds, DEFAULT_DATA_DIR)
    folds = tuple(sorted(set(found.folds.tolist())))
    return KnownDataset(found.name, found.fingerprint, folds, tuple(found.class_names))


def dataset_slug(name_or_path: str | Path) -> str:
    """What the name of a data set begins with, without reading a clip, and also when its folder is gone.

    ``"demo"`` and ``"esc10"`` are the whole name. Other names go on with a hyphen and the first 8 digits of the
    fingerprint; data sets with the same slug may differ in content.

    Raises:
        InputError: a path that cannot be followed.
    """
    name, option = _split_name(name_or_path)
    if name in FIXED_CONTENT:
        return name
    if option == "esc10":
        return "esc50-esc10"
    path = user_path(name)
    slug = folder_slug(_home(path))
    # A copy of ESC-10 or ESC-50 that is gone is known by its usual name.
    layout = _find_layout(path)[0] or {"esc-10": "esc10", "esc-50": "esc50"}.get(slug)
    return layout if layout == "esc10" or layout in PUBLISHED else slug


def _home(path: Path) -> Path:
    """The folder that a data set is named after; an archive counts as one, and a table stands for its own."""
    if path.suffix.lower() == ".zip":
        return path.with_suffix("")
    return path.parent if path.suffix.lower() == ".csv" and not path.is_dir() else path


def _split_name(name_or_path: str | Path) -> tuple[str, str]:
    """The name or path itself, and the option behind it: ``esc10``, a length such as ``4s``, or nothing."""
    found = OPTION.fullmatch(str(name_or_path))
    return (found[1], found[2]) if found else (str(name_or_path), "")


def _find_dataset(
    name_or_path: str | Path, with_folds: Collection[int], data_dir: Path, **folds: Any
) -> Dataset | Listing:
    """A data set that has the folds in ``with_folds``, not yet decoded if it consists of files.

    Args:
        folds: how to make some anew, see ``load_dataset``.
    """
    name, option = _split_name(name_or_path)
    path = locate_esc10(data_dir) if name == "esc10" else user_path(name)
    if path.suffix.lower() == ".zip" and path.is_file():
        path = unpack(path, data_dir / "unpacked")
    layout, place = (name, path) if name in FIXED_CONTENT else _find_layout(path)
    if layout is None:
        what = f"folder with sounds or a {TABLE}"
        raise InputError(f"{str(path)!r} is neither demo, nor esc10, nor a {what}; check the name or the path")
    if option and layout != ("esc50" if option == "esc10" else "folder"):
        use = "a copy of ESC-50" if option == "esc10" else "your own folder"
        raise InputError(f"':{option}' is for {use}, which {name!r} is not; leave it out")
    if layout != "folder" and any(wish is not None for wish in folds.values()):
        raise InputError(f"{name!r} has folds of its own; make some for your own folder alone")
    if layout == "demo":
        refuse_missing_folds("demo", FOLDS, with_folds)  # before the clips are generated
        found: Dataset | Listing = load_demo(data_dir)
    elif layout == "esc10":
        found = list_esc10(place)
    elif layout in PUBLISHED:
        found = list_published(PUBLISHED[layout], place, esc10_only=option == "esc10")
    else:
        clip_seconds = float(option[:-1]) if option else None
        home, kept = _home(user_path(name)), data_dir / "folds"
        found = list_folder(place, home=home, folds_dir=kept, clip_seconds=clip_seconds, **folds)
    refuse_missing_folds(found.name, sorted(set(found.folds.tolist())), with_folds)
    return found


def _find_layout(path: Path) -> tuple[str | None, Path]:
    """``"folder"``, ``"esc10"`` or the name of a published data set, None if it is none; and its folder or table."""
    if path.is_file():
        return "folder" if path.suffix.lower() == ".csv" else None, path
    for folder in _folders_within(path):
        tables = [each for each in folder.iterdir() if each.name.lower() == TABLE and each.is_file()]
        if len(tables) > 1:
            raise InputError(f"{folder} has {tables[0].name} and {tables[1].name}; leave one of them")
        if tables:
            return "folder", tables[0]
        for layout in PUBLISHED.values():
            if any((folder / table).is_file() for table in layout.table):
                return layout.slug, folder
        if copy := find_esc10(folder):
            return "esc10", copy
    return "folder" if any(sound_files(path)) else None, path


def _folders_within(folder: Path) -> Iterator[Path]:
    """A folder, and those in it as long as there is only one."""
    inner = [folder]
    while len(inner) == 1 and inner[0].is_dir():
        yield (folder := inner[0])
        with explained(folder, "check its rights", fault="cannot read"):
            inner = [each for each in folder.iterdir() if each.is_dir() and not each.name.startswith((".", "_"))]
