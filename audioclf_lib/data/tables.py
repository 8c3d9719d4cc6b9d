"""CSV tables that users give, with messages that name the line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from audioclf_lib._support.errors import InputError, quote
from audioclf_lib.config import MAX_FOLD


def read_table(path: Path, required: Sequence[str]) -> pd.DataFrame:
    """Read a comma-separated table as text; its index is the line number in the file.

    Raises:
        InputError: not a comma-separated UTF-8 table, without a required column, with a column twice, or with a line
            that has more or fewer entries than there are columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            rows = [(reader.line_num, [entry.strip() for entry in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}); save it as a comma-separated UTF-8 table") from None
    rows = [(line, entries) for line, entries in rows if any(entries)]
    columns = rows.pop(0)[1] if rows else []
    for column in (*required, *filter(None, columns)):
        if columns.count(column) != 1:
            fault = f"two columns {column!r}" if column in columns else f"no column {column!r}"
            given = quote(", ".join(columns)) if columns else "nothing"
            wanted = f"write a comma-separated table with {', '.join(required)}"
            raise InputError(f"{path} has {fault} (its first line has {given}); {wanted}")
    for line, entries in rows:
        if len(entries) != len(columns):
            fault = f"there are {len(entries)} entries for {len(columns)} columns"
            raise InputError(f"{path}, line {line}: {fault}; put one in each, and quotes around an entry with a comma")
    return pd.DataFrame([entries for _, entries in rows], [line for line, _ in rows], columns, dtype=object)


def check_column(path: Path, column: pd.Series[str], is_good: Callable[[str], bool], message: str) -> None:
    """Raise InputError for the first value that is not good; ``{}`` in the message stands for the value."""
    for line, value in column.items():
        if not is_good(value):
            raise InputError(f"{path}, line {line}: " + message.format(f"{column.name} {quote(value)}"))


def number_column(path: Path, column: pd.Series[str]) -> pd.Series[int]:
    """The column as whole numbers from 0, such as those of folds.

    Raises:
        InputError: a value that is not such a number.
    """

    def is_number(value: str) -> bool:
        return value.isascii() and value.isdigit() and len(value) <= len(str(MAX_FOLD))

    check_column(path, column, is_number, f"{{}} is none of 0, 1, 2, ... {MAX_FOLD}; write such a number")
    return column.astype(int)


def file_column(path: Path, column: pd.Series[str]) -> pd.Series[str]:
    """The column as paths of files below the table's folder, with ``/`` between their parts.

    Raises:
        InputError: a path that leads out of the folder.
    """
    message = "{} leads out of the folder; put the file into it and name it from there"
    check_column(path, column, lambda value: not leaves_folder(value), message)
    return column.map(lambda value: PurePosixPath(value.replace("\\", "/")).as_posix())


def leaves_folder(path: str) -> bool:
    """True if a relative path leads out of its folder on some system, or is not relative."""
    parts = path.replace("\\", "/").split("/")
    return ".." in parts or path.startswith(("/", "\\")) or PureWindowsPath(path).is_absolute()
