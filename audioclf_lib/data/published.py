"""ESC-50 (Piczak 2015) and UrbanSound8K (Salamon, Jacoby and Bello 2014), as published and as Kaggle has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from audioclf_lib._support.errors import InputError, quote
from audioclf_lib.data.dataset import Listing
from audioclf_lib.data.tables import file_column, number_column, read_table


@dataclass(frozen=True)
class Published:
    """How a published data set lies on the disk.

    Attributes:
        slug: what the data set's name begins with.
        table: places of its table, below its folder.
        columns: of the table, see ``read_table``; ``target`` gives the order of the classes.
        audio: folders that may hold the files; the first that does is taken.
        file: where a clip lies in that folder.
        clip_seconds, description, licence: see ``Listing``.
    """

    slug: str
    table: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    audio: tuple[str, ...]
    file: str
    clip_seconds: float
    description: str
    licence: str


ESC50 = Published(
    "esc50",
    ("meta/esc50.csv", "esc50.csv"),
    {"filename": (), "fold": (), "target": (), "label": ("category",), "esc10": (), "source": ("srcfile",)},
    ("audio", "audio/audio/44100", "audio/44100", "audio/audio"),
    "{filename}",
    5,
    "ESC-50{part}: environmental recordings of 5 s in five folds (Piczak 2015)",
    "CC BY-NC 3.0; credits for every clip in the data set's README",
)
URBANSOUND8K = Published(
    "urbansound8k",
    ("metadata/UrbanSound8K.csv", "UrbanSound8K.csv"),
    {"filename": ("slicefilename",), "fold": (), "target": ("classid",), "label": ("class",), "source": ("fsid",)},
    ("audio", "."),
    "fold{fold}/{filename}",
    4,
    "UrbanSound8K: urban recordings of up to 4 s in ten folds (Salamon, Jacoby and Bello 2014)",
    "CC BY-NC 3.0; credits for every clip in the data set's FREESOUNDCREDITS.txt",
)


def list_published(layout: Published, folder: Path, *, esc10_only: bool = False) -> Listing:
    """The clips of a published data set, with its classes in the order of their targets.

    Args:
        layout: which one.
        folder: that holds its table and its audio.
        esc10_only: take only the ten classes of ESC-50 that are marked as ESC-10.

    Raises:
        InputError: the table lacks a column or gives a class two targets, or a clip is missing or unreadable.
    """
    path = next(folder / place for place in layout.table if (folder / place).is_file())
    table = read_table(path, layout.columns)
    if esc10_only:
        table = table[table["esc10"].str.lower() == "true"]
    labels, targets = table["label"].str.replace("_", " "), number_column(path, table["target"])
    classes = labels.groupby(targets).first()  # sorted by target
    for line in table.index[labels != targets.map(classes)]:
        given = f"target {targets[line]} for {quote(labels[line])} and for {quote(classes[targets[line]])}"
        raise InputError(f"{path}, line {line}: there is {given}; give each category a target of its own")
    clips = pd.DataFrame({"label": labels, "fold": number_column(path, table["fold"]), "source": table["source"]})
    names = zip(clips["fold"], file_column(path, table["filename"], folder), strict=True)
    files = [layout.file.format(fold=fold, filename=name) for fold, name in names]
    places = [folder / place for place in layout.audio]
    audio = next((place for place in places if files and (place / files[0]).exists()), places[0])
    clips["path"] = pd.Series([audio / file for file in files], clips.index, dtype=object)
    clips["clip_id"] = [Path(file).stem for file in files]
    return Listing(
        f"{layout.slug}-esc10" if esc10_only else layout.slug,
        clips,
        classes.tolist(),
        clip_seconds=layout.clip_seconds,
        description=layout.description.format(part=" (the ten classes of ESC-10)" if esc10_only else ""),
        licence=layout.licence,
    )
