"""ESC-10 (K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015)."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import PROJECT_ROOT, user_path
from audioclf_lib.data.dataset import Listing, hash_files
from audioclf_lib.data.download import download_archive

CLIP_SECONDS = 5

REGISTRY = Path(__file__).with_name("esc10_registry.csv")
ESC10_URL = "https://github.com/karolpiczak/ESC-10/archive/553c8f1743b9dba6b282e1323c3ca8fa76923448.zip"
# fmt: off
ESC10_CLASSES = (
    "dog bark", "rain", "sea waves", "baby cry", "clock tick",
    "person sneeze", "helicopter", "chainsaw", "rooster", "fire crackling",
)
# fmt: on
ESC10_FOLDERS = tuple(f"{number:03} - {name.capitalize()}" for number, name in enumerate(ESC10_CLASSES, start=1))


def read_registry() -> pd.DataFrame:
    """The 400 clips of ESC-10: path, sha256, label, fold, source, licence, licence_url, author, title, url."""
    return pd.read_csv(REGISTRY, dtype={"source": str}, keep_default_na=False)


def find_esc10(folder: Path) -> Path | None:
    """The ESC-10 folder that ``folder`` is, or holds under the name ``ESC-10``."""
    for candidate in (folder, folder / "ESC-10"):
        if any((candidate / name).is_dir() for name in ESC10_FOLDERS):
            return candidate
    return None


def locate_esc10(data_dir: Path, *, url: str | None = None, retries: int = 3) -> Path:
    """Find a copy of ESC-10 through AUDIOCLF_DATA or in ``data_dir``; else download one to ``data_dir``.

    AUDIOCLF_DATA is the ESC-10 folder or one that holds it; a relative path counts from the working directory or,
    failing that, from the project.

    Raises:
        InputError: AUDIOCLF_DATA holds no ESC-10, or the download failed.
    """
    given = os.environ.get("AUDIOCLF_DATA")
    copy = find_esc10(user_path(given)) or find_esc10(PROJECT_ROOT / given) if given else find_esc10(data_dir)
    if given and copy is None:
        raise InputError(f"AUDIOCLF_DATA = {given!r} holds no ESC-10; set it to a folder that does, or unset it")
    if copy is None:
        copy, remedy = data_dir / "ESC-10", "set AUDIOCLF_DATA to a folder with a copy of ESC-10"
        download_archive(url or ESC10_URL, copy, find_fault, remedy=remedy, retries=retries)
    return copy


def find_fault(folder: Path) -> str | None:
    """What is wrong with a copy of ESC-10, by the registry: a clip that is missing or altered."""
    registry = read_registry().set_index("path")["sha256"]
    for path in registry.index:
        if not (folder / path).is_file():
            return f"{path!r} is missing"
    altered = registry.index[registry != hash_files(folder / path for path in registry.index)]
    return f"{altered[0]!r} has the wrong checksum" if len(altered) else None


def list_esc10(folder: Path) -> Listing:
    """ESC-10: 400 clips of 5 s, 40 of each of ten classes, in five folds.

    Args:
        folder: with the ten class folders.

    Raises:
        InputError: a clip is missing or altered.
    """
    if fault := find_fault(folder):
        raise InputError(f"the ESC-10 in {folder} is not as published: {fault}; replace the folder by a fresh copy")
    registry = read_registry()
    paths = [folder / path for path in registry["path"]]
    return Listing(
        "esc10",
        registry.assign(path=paths, clip_id=[path.stem for path in paths]),
        ESC10_CLASSES,
        clip_seconds=CLIP_SECONDS,
        description="ESC-10: 400 environmental recordings of 5 s in ten classes and five folds (Piczak 2015)",
        licence="CC BY 3.0; credits for every clip in the data set's README",
    )
