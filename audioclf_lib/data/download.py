"""Fetch ESC-10's archive and unpack it, wholly or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pooch
import requests

from audioclf_lib._support.errors import InputError
from audioclf_lib._support.paths import folder_for
from audioclf_lib.runs.locks import hold_lock

# The data set's archive holds 42 MB in about 400 files.
MAX_BYTES = 200_000_000
MAX_FILES = 2_000


def download_archive(
    url: str, target: Path, find_fault: Callable[[Path], str | None], *, remedy: str, retries: int = 3
) -> None:
    """Fetch the zip archive at ``url`` and unpack what is in its top folder to ``target``.

    Everything happens in a folder beside ``target``, which takes its name when it is complete and checked. A broken
    transfer starts anew after 1, 2, 3, ... seconds (GitHub cannot continue one); what an interrupted process left is
    removed. If several processes want the same archive, one fetches it and the others wait.

    Args:
        url: of the archive.
        target: folder to make.
        find_fault: says what is wrong with the unpacked folder, or None.
        remedy: what the user can do instead of downloading, for messages.
        retries: attempts after the first.

    Raises:
        InputError: no network, no such archive, an unsafe or wrong one, no space, or a folder that is not writable.
    """
    parts = target.with_name(f".{target.name}.part")
    try:
        with folder_for(target.parent), hold_lock(target.with_name(f".{target.name}.lock")):
            if target.exists():  # another process was faster
                return
            shutil.rmtree(parts, ignore_errors=True)
            try:
                unpack(_fetch(url, parts, retries), parts / target.name)
                fault = find_fault(parts / target.name)
                if fault is not None:
                    raise InputError(f"the archive from {url} is not the expected one: {fault}; {remedy}")
                os.replace(parts / target.name, target)
            finally:
                shutil.rmtree(parts, ignore_errors=True)
    except requests.RequestException as error:
        status = f"status {error.response.status_code}" if error.response is not None else type(error).__name__
        raise InputError(f"cannot download {url} ({status}); check the network and try again, or {remedy}") from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write to {target.parent} ({reason}); make space there, or {remedy}") from None


def _fetch(url: str, folder: Path, retries: int) -> Path:
    downloader = pooch.HTTPDownloader(progressbar=True, chunk_size=2**16)
    # No checksum: GitHub makes the archive anew from time to time; the files in it are checked instead.
    registry = pooch.create(
        path=folder, base_url="", registry={"archive.zip": None}, urls={"archive.zip": url}, retry_if_failed=retries
    )
    return Path(registry.fetch("archive.zip", downloader=downloader))


def unpack(archive: Path, target: Path) -> None:
    """Unpack the one top folder of a zip archive to ``target``.

    Raises:
        InputError: not a zip archive, damaged, a path that leaves ``target``, a link, or far too much content.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.is_dir()]
            size = sum(member.file_size for member in members)  # no more than this can come out: zipfile stops there
            if size > MAX_BYTES or len(members) > MAX_FILES:
                raise InputError(
                    f"the archive would unpack to {len(members):,} files of {size / 1e6:,.0f} MB, more than the "
                    f"{MAX_FILES:,} files or the {MAX_BYTES / 1e6:,.0f} MB that the data set can have; "
                    "fetch it from its own site"
                )
            for member, inside in [(member, _inside(member)) for member in members]:
                path = target / inside
                path.parent.mkdir(parents=True, exist_ok=True)
                with content.open(member) as source, path.open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise InputError(f"what was downloaded is no whole zip archive ({error}); try again later") from None


def _inside(member: zipfile.ZipInfo) -> PurePosixPath:
    """A member's path below the archive's top folder."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if is_link or path.is_absolute() or ".." in path.parts or ":" in member.filename or len(path.parts) < 2:
        raise InputError(
            f"the archive holds {member.filename!r}, which would leave its folder; fetch the data set from its own site"
        )
    return PurePosixPath(*path.parts[1:])
