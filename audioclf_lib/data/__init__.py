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

__all__ = ["DEFAULT_DATA_DIR", "Dataset", "dataset_facts", "dataset_slug", "has_slug", "load_dataset"]

ESC10_PART = ":esc10"
CLIP_LENGTH = re.compile(r"(.+):(\d+(?:\.\d+)?)s")


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
        esc10_only: of a copy of ESC-50, only the ten classes of ESC-10; ``"/path/to/ESC-50:esc10"`` says the same.
        clip_seconds: length of the clips of your own folder, by default the whole windows of the longest clip, at
            least 1 s and at most 30 s; ``"/path/to/folder:4s"`` says the same for 4 s.
        with_folds: folds that the caller needs; if one is missing, nothing is decoded.
        data_dir: for downloads and decoded clips; the project's ``data`` folder unless given.

    Raises:
        InputError: unknown name, missing folder or fold, or data that cannot be used.
    """
    data_dir = data_dir or DEFAULT_DATA_DIR
    listing = _list_dataset(name_or_path, esc10_only, clip_seconds, with_folds, data_dir)
    return load_demo(data_dir) if listing is None else listing.decode(data_dir)


def dataset_facts(name_or_path: str | Path, *, with_folds: Collection[int] = ()) -> KnownDataset:
    """Name, fingerprint, folds and classes of the data set that ``load_dataset`` gives; files are hashed, not decoded.

    Raises:
        InputError: as ``load_dataset``, except for faults that only decoding finds.
    """
    known = _list_dataset(name_or_path, False, None, with_folds, DEFAULT_DATA_DIR) or load_demo(DEFAULT_DATA_DIR)
    return KnownDataset(known.name, known.fingerprint, tuple(sorted(set(known.folds.tolist()))), known.class_names)


def dataset_slug(name_or_path: str | Path) -> str:
    """What the name of a data set begins with, without reading a clip, and also when its folder is gone.

    ``"demo"`` and ``"esc10"`` are the whole name. Other names go on with a hyphen and the first 8 digits of the
    fingerprint, see ``has_slug``; data sets with the same slug may differ in content.

    Raises:
        InputError: a path that cannot be followed.
    """
    name, esc10_only, _ = _split_name(name_or_path)
    if name in FIXED_CONTENT:
        return name
    if esc10_only:
        return "esc50-esc10"
    folder = user_path(name)
    slug, layout = folder_slug(folder), _find_layout(folder)
    if layout is None:  # the folder is gone; then a copy of ESC-10 or ESC-50 is known by its usual name
        return {"esc-10": "esc10", "esc-50": "esc50"}.get(slug, slug)
    return slug if layout == "folder" else layout


def has_slug(name: str, slug: str) -> bool:
    """True if ``slug`` is the slug of the data set ``name``: ``"birds-1a2b3c4d"`` has ``"birds"``."""
    return name == slug if slug in FIXED_CONTENT else bool(re.fullmatch(re.escape(slug) + "-[0-9a-f]{8}", name))


def _split_name(name_or_path: str | Path) -> tuple[str, bool, float | None]:
    """The name or path itself, whether ``:esc10`` follows it, and the seconds of a ``:4s`` that follows it."""
    name = str(name_or_path)
    if length := CLIP_LENGTH.fullmatch(name):
        return length[1], False, float(length[2])
    return name.removesuffix(ESC10_PART), name.endswith(ESC10_PART), None


def _list_dataset(
    name_or_path: str | Path,
    esc10_only: bool,
    clip_seconds: float | None,
    with_folds: Collection[int],
    data_dir: Path,
) -> Listing | None:
    """The files of a data set that has the folds in ``with_folds``; None for the demo set, which has no files."""
    name, esc10_part, length = _split_name(name_or_path)
    esc10_only, clip_seconds = esc10_only or esc10_part, clip_seconds if length is None else length
    folder = locate_esc10(data_dir) if name == "esc10" else user_path(name)
    layout = name if name in FIXED_CONTENT else _find_layout(folder)
    if layout is None and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is neither demo, nor esc10, nor a folder; check the name or the path")
    if layout is None:
        raise InputError(
            f"{folder} has neither a {TABLE} nor the layout of ESC-10 or ESC-50; "
            f"write a {TABLE} with the columns filename, label, fold"
        )
    if esc10_only and layout != "esc50":
        raise InputError(f"esc10_only chooses classes of ESC-50, which {name!r} is not; leave it out")
    if clip_seconds is not None and layout != "folder":
        raise InputError(f"clip_seconds is for your own folder; leave it out, the clips of {name!r} have 5 s")
    if layout == "demo":
        refuse_missing_folds("demo", FOLDS, with_folds)
        return None
    if layout == "esc10":
        listing = list_esc10(folder)
    elif layout == "esc50":
        listing = list_esc50(folder, esc10_only=esc10_only)
    else:
        listing = list_folder(folder, clip_seconds=clip_seconds)
    refuse_missing_folds(listing.slug, sorted(set(listing.folds.tolist())), with_folds)
    return listing


def _find_layout(folder: Path) -> str | None:
    """``"folder"``, ``"esc50"`` or ``"esc10"``, by what a folder holds; None if it is none of them."""
    if (folder / TABLE).is_file():
        return "folder"
    if (folder / ESC50_TABLE).is_file():
        return "esc50"
    return "esc10" if find_esc10(folder) is not None else None
