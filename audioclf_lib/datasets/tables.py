"""CSV tables that users give, with messages that name the line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from audioclf_lib.errors import InputError


def read_table(path: Path, required: Sequence[str]) -> pd.DataFrame:
    """Read a comma-separated table as text; its index is the line number in the file.

    Raises:
        InputError: missing, not a comma-separated UTF-8 table, or without a required column.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; write one with the columns {', '.join(required)}") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read ({reason}); save it as a comma-separated UTF-8 table") from None
    table = table.rename(columns=str.strip).map(str.strip)
    for column in required:
        if column not in table:
            raise InputError(
                f"{path} has no column {column!r} (it has {', '.join(table.columns)}); "
                f"write a comma-separated table with {', '.join(required)}"
            )
    table.index += 2  # line 1 has the column names
    return table[(table != "").any(axis=1)]


def known_values(path: Path, column: pd.Series[str], known: Sequence[str]) -> list[int]:
    """Each value's position in ``known``.

    Raises:
        InputError: a value that is not there.
    """
    position = {value: index for index, value in enumerate(known)}
    for line, value in column.items():
        if value not in position:
            raise InputError(f"{path}, line {line}: unknown {column.name} {value!r}; known are {', '.join(known)}")
    return [position[value] for value in column]


def int_column(path: Path, column: pd.Series[str]) -> list[int]:
    """The column as whole numbers from 0.

    Raises:
        InputError: a value that is none.
    """
    for line, value in column.items():
        if not (value.isascii() and value.isdigit()):
            raise InputError(f"{path}, line {line}: {column.name} {value!r} is no whole number; write 1, 2, 3, ...")
    return [int(value) for value in column]
