"""Data sets: ESC-10, ESC-50, your own folder, and a generated one for demonstration.

Nothing here needs torch before clips are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import PROJECT_ROOT, user_path
from audioclf_lib.config import KnownDataset
from audioclf_lib.data.dataset import Dataset
from audioclf_lib.data.demo import demo_facts, load_demo
from audioclf_lib.data.esc import ESC50_TABLE, find_esc10, list_esc10, list_esc50, locate_esc10
from audioclf_lib.data.folder import TABLE, folder_name, list_folder
from audioclf_lib.data.listing import Listing

__all__ = ["DEFAULT_DATA_DIR", "Dataset", "dataset_facts", "dataset_name", "load_dataset"]

DEFAULT_DATA_DIR = PROJECT_ROOT / "data"
ESC10_PART = ":esc10"
CLIP_SECONDS = re.compile(r"(.+):(\d+(?:\.\d+)?)s")


def load_dataset(
    name_or_path: str | Path = "demo",
    *,
    esc10_only: bool = False,
    clip_seconds: float | None = None,
    with_folds: Collection[int] = (),
    data_dir: Path | None = None,
) -> Dataset:
    """Load a data set by its name or from a folder.

    Args:
        name_or_path: ``"demo"`` (generated); ``"esc10"`` (from AUDIOCLF_DATA or ``data_dir``, else downloaded); or a
            folder: a copy of ESC-10, a copy of ESC-50, or your own with a ``labels.csv``.
        esc10_only: of a copy of ESC-50, the ten classes of ESC-10 only; ``"/path/to/ESC-50:esc10"`` says the same.
        clip_seconds: length of the clips of your own folder, see ``list_folder``; ``"/path/to/folder:4s"`` says the
            same for 4 s.
        with_folds: folds that the caller needs; if one is not there, nothing is decoded.
        data_dir: for downloads and decoded clips; the project's ``data`` folder unless given.

    Raises:
        InputError: unknown name, missing folder, or data that cannot be used.
    """
    data_dir = data_dir or DEFAULT_DATA_DIR
    listing = _list_dataset(str(name_or_path), esc10_only, clip_seconds, with_folds, data_dir)
    return load_demo(data_dir=data_dir, with_folds=with_folds) if listing is None else listing.decode(data_dir)


def dataset_facts(name_or_path: str | Path, *, with_folds: Collection[int] = ()) -> KnownDataset:
    """What is known of a data set before its clips are decoded: its name, fingerprint, folds and classes.

    The same as of the data set that ``load_dataset`` gives, since files are hashed and not only looked up.

    Raises:
        InputError: as of ``load_dataset``, but for what only decoding brings to light.
    """
    listing = _list_dataset(str(name_or_path), False, None, with_folds, DEFAULT_DATA_DIR)
    return demo_facts(data_dir=DEFAULT_DATA_DIR, with_folds=with_folds) if listing is None else listing.facts


def _list_dataset(
    name: str, esc10_only: bool, clip_seconds: float | None, with_folds: Collection[int], data_dir: Path
) -> Listing | None:
    """The files of a data set; None for the demo set, which has none."""
    if name.endswith(ESC10_PART):
        name, esc10_only = name.removesuffix(ESC10_PART), True
    elif length := CLIP_SECONDS.fullmatch(name):
        name, clip_seconds = length[1], float(length[2])
    folder = locate_esc10(data_dir) if name == "esc10" else user_path(name)
    layout = "demo" if name == "demo" else _layout(folder)
    if esc10_only and layout != "esc50":
        raise InputError(f"esc10_only chooses classes of ESC-50, which {name!r} is not; leave it out")
    if clip_seconds is not None and layout != "folder":
        raise InputError(f"clip_seconds is for your own folder; leave it out, the clips of {name!r} have 5 s")
    if layout == "esc50":
        return list_esc50(folder, esc10_only=esc10_only, with_folds=with_folds)
    if layout == "folder":
        return list_folder(folder, clip_seconds=clip_seconds, with_folds=with_folds)
    return list_esc10(find_esc10(folder) or folder, with_folds=with_folds) if layout == "esc10" else None


def _layout(folder: Path) -> str:
    """``"folder"``, ``"esc50"`` or ``"esc10"``, by what a folder holds."""
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is neither demo, nor esc10, nor a folder; check the name or the path")
    if (folder / TABLE).is_file():
        return "folder"
    if (folder / ESC50_TABLE).is_file():
        return "esc50"
    if find_esc10(folder) is not None:
        return "esc10"
    raise InputError(
        f"{folder} has neither a {TABLE} nor the layout of ESC-10 or ESC-50; "
        f"write a {TABLE} with the columns filename, label, fold"
    )


def dataset_name(name_or_path: str | Path) -> str:
    """The name that ``load_dataset`` would give the data set, without reading a clip.

    A folder that is not there is named after itself: its runs can still be reported.
    """
    name = str(name_or_path)
    if name in ("demo", "esc10"):
        return name
    part = "-esc10" if name.endswith(ESC10_PART) else ""
    length = CLIP_SECONDS.fullmatch(name)
    folder = user_path(length[1] if length else name.removesuffix(ESC10_PART))
    layout = _layout(folder) if folder.is_dir() else "folder"
    return folder_name(folder) if layout == "folder" else layout + part
