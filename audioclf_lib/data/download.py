"""Zip archives, downloaded or the user's own: unpacked completely or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from audioclf_lib._support.digests import digest
from audioclf_lib._support.errors import InputError
from audioclf_lib._support.locks import hold_lock
from audioclf_lib._support.paths import UNWRITABLE, explained, folder_for
from audioclf_lib.data.tables import leaves_folder

# ESC-10's archive holds 42 MB in about 400 files.
MAX_BYTES = 200_000_000
MAX_FILES = 2_000

OTHER_SOURCE = "fetch the data set from its own site"


def download_archive(
    url: str, target: Path, find_fault: Callable[[Path], str | None], *, remedy: str, retries: int = 3
) -> None:
    """Download the zip archive at ``url`` and unpack its one top folder to ``target``.

    Everything happens in a folder beside ``target``, which is renamed when it is complete and checked. A broken
    transfer starts anew after 1, 2, 3, ... seconds (GitHub cannot continue one); what an interrupted process left is
    removed. If several processes want the same archive, one downloads it and the others wait.

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
    make_space = f"make space there, or {remedy}"
    writable = explained(target.parent, make_space, fault="cannot write to")
    lock = hold_lock(target.with_name(f".{target.name}.lock"), remedy=make_space)
    with writable, folder_for(target.parent), lock:
        try:
            if target.exists():  # another process was faster
                return
            shutil.rmtree(parts, ignore_errors=True)
            folder = unpack(_fetch(url, parts, retries), parts / "unpacked")
            if fault := find_fault(folder):
                raise InputError(f"the archive from {url} is not the expected one: {fault}; {remedy}")
            os.replace(folder, target)
        except requests.RequestException as error:
            status = f"status {error.response.status_code}" if error.response is not None else type(error).__name__
            advice = f"check the network and try again, or {remedy}"
            raise InputError(f"cannot download {url} ({status}); {advice}") from None
        finally:
            shutil.rmtree(parts, ignore_errors=True)


def _fetch(url: str, folder: Path, retries: int) -> Path:
    base, _, name = url.rpartition("/")
    # No checksum: GitHub makes the archive anew from time to time; the files in it are checked instead.
    archive = pooch.create(folder, f"{base}/", registry={name: None}, retry_if_failed=retries)
    return Path(archive.fetch(name, progressbar=True))


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip archive with one top folder into ``folder``; returns the path of the top folder.

    Raises:
        InputError: not a zip archive, damaged, a path that leaves the top folder, a link, or far too much content.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            size = sum(member.file_size for member in members)  # zipfile unpacks no more than this, even if it is wrong
            if size > MAX_BYTES or len(members) > MAX_FILES:
                given = f"{len(members):,} files of {size / 1e6:,.0f} MB"
                raise InputError(f"the archive holds {given}, more than ESC-10 has; {OTHER_SOURCE}")
            for member in members:
                name, is_link = member.filename, stat.S_ISLNK(member.external_attr >> 16)
                if is_link or ":" in name or leaves_folder(name):
                    raise InputError(f"the archive holds {name!r}, which would leave its folder; {OTHER_SOURCE}")
            content.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise InputError(f"what was downloaded is no whole zip archive ({error}); try again later") from None
    tops = list(folder.glob("*"))
    if len(tops) != 1:
        raise InputError(f"the archive holds {len(tops)} folders instead of one; {OTHER_SOURCE}")
    return tops[0]


def unpack_own(archive: Path, folder: Path) -> Path:
    """Unpack an archive that the user gives below ``folder``, unless that was done before.

    It may be as large as there is room, and its files stay in its folder whatever they are called: ``zipfile`` drops
    ``..`` and roots from their names, and makes no links.

    Returns:
        the folder, whose name tells the archive's content; or the one folder that the archive consists of.

    Raises:
        InputError: not a whole zip archive, encrypted, or no room for it.
    """
    remedy = "make some there, or unpack the archive yourself"
    try:
        with zipfile.ZipFile(archive) as content, explained(folder, remedy, only=UNWRITABLE):
            members = [(member.filename, member.CRC, member.file_size) for member in content.infolist()]
            target = folder / f"{archive.stem[:20]}-{digest(members, 16)}"
            folder.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                if sum(size for _, _, size in members) > shutil.disk_usage(folder).free:
                    raise InputError(f"{archive} needs more room than there is in {folder}; {remedy}")
                with tempfile.TemporaryDirectory(dir=folder) as draft:
                    content.extractall(Path(draft, "whole"))
                    if not target.exists():  # another process was not faster
                        os.rename(Path(draft, "whole"), target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise InputError(f"{archive} is no whole zip archive ({error}); copy it anew, or unpack it yourself") from None
    inside = [path for path in target.iterdir() if path.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target
