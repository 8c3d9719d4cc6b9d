"""Where things lie, paths as users give them, files that are replaced as a whole, and folders made for what may fail.

A project is a checkout, or a course folder as ``audioclf init`` lays one: notebooks, plans and texts come from it, and
runs, data and figures go to it. Without one, notebooks and plans come from the installed library, which nothing is ever
written to, and the working directory takes the rest.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audioclf_lib._support.errors import InputError, quote

RENAME_WAITS = (0.01, 0.1, 1.0)  # seconds
PROJECT = "AUDIOCLF_PROJECT"  # names the project's folder, for processes that work elsewhere


def _is_project(folder: Path) -> bool:
    return all(os.path.isdir(folder / part) for part in ("notebooks", "workflow/plans", "report/text"))  # noqa: PTH112


def _find_project() -> Path | None:
    """The project that is named, or the one around the working directory, or the checkout that this library is in."""
    if named := os.environ.get(PROJECT):
        return Path(named)
    try:
        here = Path.cwd()
    except OSError:  # the working directory was removed
        return CHECKOUT
    return next((folder for folder in (here, *here.parents) if _is_project(folder)), CHECKOUT)


_PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = _PACKAGE.parent if _is_project(_PACKAGE.parent) else None
SHIPPED = CHECKOUT or _PACKAGE / "project"  # notebooks, workflow and examples as they come with the library
_FOUND = _find_project()
PROJECT_ROOT = _FOUND or Path(os.path.abspath("."))  # noqa: PTH100 (it need not be there any more)


def folder_of(name: str) -> Path:
    """The project's folder of that name or, where it has none, the one that comes with the library."""
    return PROJECT_ROOT / name if _FOUND and (PROJECT_ROOT / name).is_dir() else SHIPPED / name


DEFAULT_RUNS_DIR = PROJECT_ROOT / "report" / "runs"
PUBLISHED_DIR = PROJECT_ROOT / "report" / "published"
DEFAULT_DATA_DIR = PROJECT_ROOT / "data"
NOTEBOOKS_DIR = folder_of("notebooks")


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
        _rename(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _rename(draft: Path, path: Path) -> None:
    """Rename a file over another one; on Windows, wait a moment where somebody is reading that."""
    for seconds in RENAME_WAITS:
        try:
            return os.replace(draft, path)
        except PermissionError as error:
            if getattr(error, "winerror", None) is None:  # the right to is missing, and will be
                raise
            time.sleep(seconds)
    return os.replace(draft, path)


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
