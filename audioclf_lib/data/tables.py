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
        InputError: missing, not a comma-separated UTF-8 table, without a required column, or with a line that has more
            or fewer entries than there are columns.
    """
    lines: dict[int, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            columns = [entry.strip() for entry in next(reader, [])]
            _check_columns(path, columns, required)
            for row in reader:
                entries = [entry.strip() for entry in row]
                if any(entries) and len(entries) != len(columns):
                    raise InputError(
                        f"{path}, line {reader.line_num}: there are {len(entries)} entries for {len(columns)} columns; "
                        "put one in each, and quotes around an entry with a comma"
                    )
                if any(entries):
                    lines[reader.line_num] = entries
    except FileNotFoundError:
        raise InputError(f"{path} is missing; write one with the columns {', '.join(required)}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}); save it as a comma-separated UTF-8 table") from None
    return pd.DataFrame(list(lines.values()), index=list(lines), columns=columns, dtype=object)


def _check_columns(path: Path, columns: list[str], required: Sequence[str]) -> None:
    wanted = f"write a comma-separated table with {', '.join(required)}"
    for column in required:
        if column not in columns:
            there = quote(", ".join(columns)) if columns else "nothing"
            raise InputError(f"{path} has no column {column!r} (its first line has {there}); {wanted}")
    twice = [column for column in columns if column and columns.count(column) > 1]
    if twice:
        raise InputError(f"{path} has two columns {twice[0]!r}; {wanted}")


def check_column(path: Path, column: pd.Series[str], is_good: Callable[[str], bool], message: str) -> None:
    """Raise InputError for the first value that is not good; ``{}`` in the message stands for the value."""
    for line, value in column.items():
        if not is_good(value):
            raise InputError(f"{path}, line {line}: " + message.format(f"{column.name} {quote(value)}"))


def fold_column(path: Path, column: pd.Series[str]) -> list[int]:
    """The column as whole numbers from 0.

    Raises:
        InputError: a value that is not such a number.
    """

    def is_fold(value: str) -> bool:
        return value.isascii() and value.isdigit() and len(value) <= len(str(MAX_FOLD))

    check_column(path, column, is_fold, f"{{}} is none of 0, 1, 2, ... {MAX_FOLD}; write such a number")
    return [int(value) for value in column]


def file_column(path: Path, column: pd.Series[str]) -> list[str]:
    """The column as paths of files below the table's folder, with ``/`` between their parts.

    Raises:
        InputError: a path that leads out of the folder.
    """

    def stays_inside(value: str) -> bool:
        file = PurePosixPath(value.replace("\\", "/"))
        return not (file.is_absolute() or ".." in file.parts or PureWindowsPath(value).is_absolute())

    remedy = "put the file into it and name it from there"
    check_column(path, column, stays_inside, f"{{}} leads out of the folder; {remedy}")
    return [PurePosixPath(value.replace("\\", "/")).as_posix() for value in column]
