"""CSV tables that users give, with messages that name the line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
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
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _lines(file)
            columns = next(lines, (1, []))[1]
            _check_columns(path, columns, required)
            rows = [(number, _fitting(path, number, row, columns)) for number, row in lines if any(row)]
    except FileNotFoundError:
        raise InputError(f"{path} is missing; write one with the columns {', '.join(required)}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}); save it as a comma-separated UTF-8 table") from None
    return pd.DataFrame([row for _, row in rows], index=[number for number, _ in rows], columns=columns, dtype=object)


def _lines(file: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Every row without the space around its entries, and the number of the line on which it ends."""
    reader = csv.reader(file, strict=True, skipinitialspace=True)
    for row in reader:
        yield reader.line_num, [entry.strip() for entry in row]


def _check_columns(path: Path, columns: list[str], required: Sequence[str]) -> None:
    wanted = f"write a comma-separated table with {', '.join(required)}"
    for column in required:
        if column not in columns:
            there = quote(", ".join(columns)) if columns else "nothing"
            raise InputError(f"{path} has no column {column!r} (its first line has {there}); {wanted}")
    twice = [column for column in columns if column and columns.count(column) > 1]
    if twice:
        raise InputError(f"{path} has two columns {twice[0]!r}; {wanted}")


def _fitting(path: Path, number: int, row: list[str], columns: list[str]) -> list[str]:
    if len(row) != len(columns):
        raise InputError(
            f"{path}, line {number}: there are {len(row)} entries for {len(columns)} columns; "
            "put one in each, and quotes around an entry with a comma"
        )
    return row


def known_values(path: Path, column: pd.Series[str], known: Sequence[str]) -> list[int]:
    """Each value's position in ``known``.

    Raises:
        InputError: a value that is not there.
    """
    position = {value: index for index, value in enumerate(known)}
    for line, value in column.items():
        if value not in position:
            given = f"{column.name} {quote(value)}"
            raise InputError(f"{path}, line {line}: unknown {given}; known are {', '.join(known)}")
    return [position[value] for value in column]


def int_column(path: Path, column: pd.Series[str]) -> list[int]:
    """The column as whole numbers from 0.

    Raises:
        InputError: a value that is none.
    """
    for line, value in column.items():
        if not (value.isascii() and value.isdigit() and len(value) <= len(str(MAX_FOLD))):
            given = f"{column.name} {quote(value)}"
            raise InputError(f"{path}, line {line}: {given} is none of 0, 1, 2, ... {MAX_FOLD}; write such a number")
    return [int(value) for value in column]


def file_column(path: Path, column: pd.Series[str]) -> list[str]:
    """The column as paths of files below the table's folder, with ``/`` between their parts.

    Raises:
        InputError: a path that leads out of the folder.
    """
    files = []
    for line, value in column.items():
        name = value.replace("\\", "/")
        file = PurePosixPath(name)
        if file.is_absolute() or ".." in file.parts or PureWindowsPath(name).is_absolute():
            raise InputError(
                f"{path}, line {line}: {column.name} {quote(value)} leads out of the folder; "
                "put the file into it and name it from there"
            )
        files.append(file.as_posix())
    return files
