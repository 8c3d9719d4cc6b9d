"""Paths as users give them, files that are replaced as a whole, and folders made for something that may yet fail."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audioclf_lib._support.errors import InputError, quote

PROJECT_ROOT = Path(__file__).resolve().parents[2]
DEFAULT_RUNS_DIR = PROJECT_ROOT / "report" / "runs"
PUBLISHED_DIR = PROJECT_ROOT / "report" / "published"
DEFAULT_DATA_DIR = PROJECT_ROOT / "data"
NOTEBOOKS_DIR = PROJECT_ROOT / "notebooks"


def user_path(text: str | Path) -> Path:
    """The path that a user wrote, with ``~`` replaced; there need not be anything.

    Raises:
        InputError: no path at all: an unknown home, a NUL character, a name that is too long, or links in a circle.
    """
    try:
        path = Path(text).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{quote(str(text))} is no path that can be followed ({reason.rstrip('.')}); correct it"
        ) from None
    return path


# What the system says where nothing can be written; other errors, as of a process that cannot start, are no such thing.
UNWRITABLE = frozenset(
    getattr(errno, name, None)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENOTDIR", "ENAMETOOLONG")
)


@contextmanager
def explained(
    path: Path, remedy: str, *, fault: str = "cannot write", only: Collection[int | None] | None = None
) -> Iterator[None]:
    """Tell in one sentence that the block cannot write to ``path`` or below: a full disk, a read-only one, no right.

    Args:
        path, remedy, fault: the sentence is ``<fault> <path>: <what the system says>; <remedy>``.
        only: numbers of the errors that are told so; all unless given. ``UNWRITABLE`` is for blocks that do other
            things, too.

    Raises:
        InputError: instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        raise InputError(f"{fault} {path}: {error.strerror or error}; {remedy}") from error


def try_to_write(folder: Path, remedy: str) -> None:
    """Raise InputError if nothing can be written into a folder: 64 kB are tried.

    Raises:
        InputError: as of ``explained``.
    """
    draft = folder / f".{uuid.uuid4().hex}"
    with explained(folder, remedy, only=UNWRITABLE):
        try:
            draft.write_bytes(bytes(65_536))
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, then rename it; its folder is made where it is missing.

    Raises:
        OSError: the disk is full or the file cannot be written; what was there before stays.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def folder_for(folder: Path) -> Iterator[None]:
    """Make a folder for what the block writes; if the block fails, remove what was made for it and stayed empty.

    Raises:
        OSError: the folder cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # it is not empty, or in use
                each.rmdir()
        raise
