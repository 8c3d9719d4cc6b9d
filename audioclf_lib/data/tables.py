"""Tables that users give, as spreadsheets, pandas and other systems write them, with messages that name the line."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from audioclf_lib._support.errors import InputError, quote
from audioclf_lib.config import MAX_FOLD

# Those of labels.csv, each with other names for it.
LABEL_COLUMNS = {
    "filename": ("file", "path", "name"),
    "label": ("class", "category", "target"),
    "fold": (),
    "source": (),
}

# Zero-width space, non-joiner and joiner, word joiner, byte order mark, soft hyphen.
UNSEEN = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))


def read_table(path: Path, columns: Mapping[str, Collection[str]], *, optional: Collection[str] = ()) -> pd.DataFrame:
    """Read the named columns of a table as text; the index is the line number in the file.

    Commas, semicolons or tabs stand between the entries; the text is UTF-8, UTF-16 (with its byte order mark) or
    Windows-1252. In headers, case, spaces and underscores mean nothing.

    Args:
        path: of the table.
        columns: their names, each with other names that stand for it, in lower case and without spaces.
        optional: columns that may be missing.

    Raises:
        InputError: no such table, without a column, with two for one name, or with a line that has more or fewer
            entries than there are columns.
    """
    rows = _read_rows(path)
    header = rows.pop(0)[1] if rows else []
    keys = [re.sub(r"[\s_]", "", name).casefold() for name in header]
    places: dict[str, int] = {}
    for column, others in columns.items():
        found = [place for place, key in enumerate(keys) if key == column]
        found = found or [place for place, key in enumerate(keys) if key in others]
        if len(found) > 1 or (not found and column not in optional):
            wanted, several = (" or ".join(map(repr, (column, *others))), " and ".join(repr(header[n]) for n in found))
            fault = f"two columns for {column!r}, {several}," if found else f"no column {wanted}"
            given = quote(", ".join(header)) if header else "nothing"
            remedy = f"write a table with {', '.join(columns)}"
            raise InputError(f"{path} has {fault} (its first line has {given}); {remedy}")
        if found:
            places[column] = found[0]
    named = max(place for place, key in enumerate(keys) if key) + 1
    for line, entries in rows:
        if len(entries) < named or any(entries[len(header) :]):
            fault = f"there are {len(entries)} entries for {len(header)} columns"
            raise InputError(f"{path}, line {line}: {fault}; put one in each, and quotes around an entry with a comma")
    entries_of = {column: [entries[place] for _, entries in rows] for column, place in places.items()}
    return pd.DataFrame(entries_of, [line for line, _ in rows], dtype=object)


def read_labels(path: Path) -> pd.DataFrame:
    """The clips of a table: ``filename, label`` and, if you like, ``fold`` and ``source``.

    Clips cut from one recording share a ``source``, so that they can be kept in one fold.

    Returns:
        a row for each clip, with ``clip_id``, ``path``, ``label``, and ``fold`` and ``source`` if the table has them.

    Raises:
        InputError: the table cannot be used.
    """
    table = read_table(path, LABEL_COLUMNS, optional=("fold", "source"))
    for column in ("filename", "label"):
        check_column(path, table[column], bool, "{} is empty; fill it in or drop the line")
    files = file_column(path, table["filename"], path.parent)
    clips = pd.DataFrame({"clip_id": files, "path": find_files(path.parent, files)})
    clips["label"] = label_column(path, table["label"])
    if "fold" in table:
        clips["fold"] = number_column(path, table["fold"])
    if "source" in table:
        clips["source"] = table["source"].where(table["source"] != "", files)
    return clips


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers."""
    try:
        text = _decode(path.read_bytes())
        announced = re.match(r'"?sep=(.)"?\s*$', text, re.MULTILINE | re.IGNORECASE)  # for Excel
        first = next(iter(text.lstrip().splitlines()), "")
        delimiter = announced[1] if announced else max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
        rows = [(reader.line_num, [entry.strip() for entry in row]) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}); save it as a comma-separated UTF-8 table") from None
    return [(line, entries) for line, entries in rows[bool(announced) :] if any(entries)]


def _decode(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    with suppress(UnicodeDecodeError):
        return content.decode("utf-8-sig")
    return content.decode("cp1252")  # what Excel writes in western Europe; Latin-1 is a part of it


def check_column(path: Path, column: pd.Series[str], is_good: Callable[[str], bool], message: str) -> None:
    """Raise InputError for the first value that is not good; ``{}`` in the message stands for the value."""
    for line, value in column.items():
        if not is_good(value):
            raise InputError(f"{path}, line {line}: " + message.format(f"{column.name} {quote(value)}"))


def number_column(path: Path, column: pd.Series[str]) -> pd.Series[int]:
    """The column as whole numbers from 0, such as those of folds; also written as ``1.0`` or ``1,0``.

    Raises:
        InputError: a value that is not such a number.
    """
    digits = rf"([0-9]{{1,{len(str(MAX_FOLD))}}})(?:[.,]0+)?"
    message = f"{{}} is none of 0, 1, 2, ... {MAX_FOLD}; write such a number"
    check_column(path, column, lambda value: bool(re.fullmatch(digits, value)), message)
    return column.str.extract(digits, expand=False).astype(int)


def clean_label(text: str) -> str:
    """A label without what nobody sees: composed as Unicode's NFC, plain spaces, no zero-width characters."""
    plain = (" " if unicodedata.category(character) == "Zs" else character for character in text.translate(UNSEEN))
    return unicodedata.normalize("NFC", "".join(plain)).strip()


def label_column(where: Path, column: pd.Series[str]) -> pd.Series[str]:
    """The column as labels, see ``clean_label``.

    Raises:
        InputError: two labels that differ by case alone.
    """
    labels = column.map(clean_label)
    spellings: dict[str, str] = {}
    for label in labels:
        if (other := spellings.setdefault(label.casefold(), label)) != label:
            fault = f"the labels {quote(other)} and {quote(label)} differ by case alone"
            raise InputError(f"{where}: {fault}; write them alike, or tell them apart by a word")
    return labels


def file_column(path: Path, column: pd.Series[str], folder: Path) -> pd.Series[str]:
    """The column as paths of files below ``folder``, with ``/`` between their parts.

    Raises:
        InputError: a path that leads out of the folder.
    """

    def below_folder(value: str) -> str:
        given = Path(value)
        for base in (folder.absolute(), folder.resolve()):
            given = given.relative_to(base) if given.is_relative_to(base) else given
        return str(given)

    files = column.map(below_folder)
    message = "{} leads out of the folder; put the file into it and name it from there"
    check_column(path, files, lambda value: not leaves_folder(value), message)
    return files.map(lambda value: PurePosixPath(value.replace("\\", "/")).as_posix())


def leaves_folder(path: str) -> bool:
    """True if a relative path leads out of its folder on some system, or is not relative."""
    parts = path.replace("\\", "/").split("/")
    return ".." in parts or path.startswith(("/", "\\")) or PureWindowsPath(path).is_absolute()


def find_files(folder: Path, names: Iterable[str]) -> list[Path]:
    """The files of these names; where there is none, the one whose name differs in Unicode's normal form alone."""
    composed: dict[str, Path] = {}

    def find(name: str) -> Path:
        if os.path.lexists(folder / name):
            return folder / name
        if not composed:
            files = folder.rglob("*")
            composed.update((unicodedata.normalize("NFC", file.relative_to(folder).as_posix()), file) for file in files)
        return composed.get(unicodedata.normalize("NFC", name), folder / name)

    return [find(name) for name in names]
