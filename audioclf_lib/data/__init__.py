"""Data sets: ESC-10, ESC-50, your own folder, and a generated one for demonstration.

torch is imported only where clips are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import DEFAULT_DATA_DIR, user_path
from audioclf_lib.config import KnownDataset, refuse_missing_folds
from audioclf_lib.data.dataset import FIXED_CONTENT, Dataset, Listing
from audioclf_lib.data.demo import FOLDS, load_demo
from audioclf_lib.data.esc import ESC50_TABLE, find_esc10, list_esc10, list_esc50, locate_esc10
from audioclf_lib.data.folder import TABLE, folder_slug, list_folder

__all__ = ["DEFAULT_DATA_DIR", "Dataset", "dataset_facts", "dataset_slug", "load_dataset"]

OPTION = re.compile(r"(.+):(esc10|\d+(?:\.\d+)?s)")


def load_dataset(
    name_or_path: str | Path = "demo", *, with_folds: Collection[int] = (), data_dir: Path | None = None
) -> Dataset:
    """Load a data set by its name or from a folder.

    Args:
        name_or_path: ``"demo"`` (generated); ``"esc10"`` (from AUDIOCLF_DATA or ``data_dir``, else downloaded); or a
            folder: a copy of ESC-10, a copy of ESC-50, or your own with a ``labels.csv``. ``"/path/to/ESC-50:esc10"``
            takes only the ten classes of ESC-10; ``"/path/to/folder:4s"`` sets the length of the clips of your own
            folder, by default the whole windows of the longest clip, at least 1 s and at most 30 s.
        with_folds: folds that the caller needs; if one is missing, no file is decoded.
        data_dir: for downloads and decoded clips; the project's ``data`` folder unless given.

    Raises:
        InputError: unknown name, missing folder or fold, or data that cannot be used.
    """
    data_dir = data_dir or DEFAULT_DATA_DIR
    found = _find_dataset(name_or_path, with_folds, data_dir)
    return found if isinstance(found, Dataset) else found.decode(data_dir)


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
    slug = folder_slug(user_path(name))
    # A copy of ESC-10 or ESC-50 that is gone is known by its usual name.
    layout = _find_layout(user_path(name)) or {"esc-10": "esc10", "esc-50": "esc50"}.get(slug)
    return layout if layout in ("esc10", "esc50") else slug


def _split_name(name_or_path: str | Path) -> tuple[str, str]:
    """The name or path itself, and the option behind it: ``esc10``, a length such as ``4s``, or nothing."""
    found = OPTION.fullmatch(str(name_or_path))
    return (found[1], found[2]) if found else (str(name_or_path), "")


def _find_dataset(name_or_path: str | Path, with_folds: Collection[int], data_dir: Path) -> Dataset | Listing:
    """A data set that has the folds in ``with_folds``, not yet decoded if it consists of files."""
    name, option = _split_name(name_or_path)
    folder = locate_esc10(data_dir) if name == "esc10" else user_path(name)
    layout = name if name in FIXED_CONTENT else _find_layout(folder)
    if layout is None and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is neither demo, nor esc10, nor a folder; check the name or the path")
    if layout is None:
        remedy = f"write a {TABLE} with the columns filename, label, fold"
        raise InputError(f"{folder} has neither a {TABLE} nor the layout of ESC-10 or ESC-50; {remedy}")
    if option and layout != ("esc50" if option == "esc10" else "folder"):
        use = "a copy of ESC-50" if option == "esc10" else "your own folder"
        raise InputError(f"':{option}' is for {use}, which {name!r} is not; leave it out")
    if layout == "demo":
        refuse_missing_folds("demo", FOLDS, with_folds)  # before the clips are generated
        found: Dataset | Listing = load_demo(data_dir)
    elif layout == "esc10":
        found = list_esc10(folder)
    elif layout == "esc50":
        found = list_esc50(folder, esc10_only=option == "esc10")
    else:
        found = list_folder(folder, clip_seconds=float(option[:-1]) if option else None)
    refuse_missing_folds(found.name, sorted(set(found.folds.tolist())), with_folds)
    return found


def _find_layout(folder: Path) -> str | None:
    """``"folder"``, ``"esc50"`` or ``"esc10"``, by what a folder holds; None if it is none of them."""
    if (folder / TABLE).is_file():
        return "folder"
    if (folder / ESC50_TABLE).is_file():
        return "esc50"
    return "esc10" if find_esc10(folder) else None
