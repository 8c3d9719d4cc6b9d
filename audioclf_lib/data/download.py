"""Zip archives, downloaded or the user's own: unpacked completely or not at all."""

from __future__ import annotations

import os
import shutil
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


def download_archive(
    url: str, target: Path, find_fault: Callable[[Path], str | None], *, remedy: str, retries: int = 3
) -> None:
    """Download the zip archive at ``url`` and unpack its one top folder to ``target``.

    Everything happens in a temporary folder beside ``target``; what is complete and checked is renamed. A broken
    transfer starts anew after 1, 2, 3, ... seconds (GitHub cannot continue one). If several processes want the same
    archive, one downloads it and the others wait.

    Args:
        url: of the archive.
        target: folder to make.
        find_fault: says what is wrong with the unpacked folder, or None.
        remedy: what the user can do instead of downloading, for messages.
        retries: attempts after the first.

    Raises:
        InputError: no network, no such archive, a damaged or wrong one, no space, or a folder that is not writable.
    """
    base, _, name = url.rpartition("/")
    make_space = f"make space there, or {remedy}"
    writable = explained(target.parent, make_space, fault="cannot write to")
    lock = hold_lock(target.with_name(f".{target.name}.lock"), remedy=make_space)
    with writable, folder_for(target.parent), lock, tempfile.TemporaryDirectory(dir=target.parent) as draft:
        if target.exists():  # another process was faster
            return
        # No checksum: GitHub makes the archive anew from time to time; the files in it are checked instead.
        archive = pooch.create(draft, f"{base}/", registry={name: None}, retry_if_failed=retries)
        try:
            content = Path(archive.fetch(name, progressbar=True))
        except requests.RequestException as error:
            status = f"status {error.response.status_code}" if error.response is not None else type(error).__name__
            advice = f"check the network and try again, or {remedy}"
            raise InputError(f"cannot download {url} ({status}); {advice}") from None
        folder = unpack(content, Path(draft, "unpacked"), remedy=f"try again later, or {remedy}")
        if fault := find_fault(folder):
            raise InputError(f"the archive from {url} is not the expected one: {fault}; {remedy}")
        os.replace(folder, target)


def unpack(archive: Path, folder: Path, *, remedy: str = "copy it anew, or unpack it yourself") -> Path:
    """Unpack a zip archive below ``folder``, unless that was done before.

    It may be as large as there is room, and its files stay in its folder whatever they are called: ``zipfile`` drops
    ``..`` and roots from their names, and makes no links.

    Args:
        archive: the archive.
        folder: where its own folder is made.
        remedy: what the user can do about one that is damaged, for the message.

    Returns:
        the folder, whose name tells the archive's content; or the one folder that the archive consists of.

    Raises:
        InputError: not a whole zip archive, encrypted, or no room for it.
    """
    try:
        with zipfile.ZipFile(archive) as content, explained(folder, "make space there", only=UNWRITABLE):
            members = [(member.filename, member.CRC, member.file_size) for member in content.infolist()]
            target = folder / f"{archive.stem[:20]}-{digest(members, 16)}"
            folder.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                if sum(size for _, _, size in members) > shutil.disk_usage(folder).free:
                    raise InputError(f"{archive} needs more room than there is in {folder}; make some there")
                with tempfile.TemporaryDirectory(dir=folder) as draft:
                    content.extractall(Path(draft, "whole"))
                    if not target.exists():  # another process was not faster
                        os.rename(Path(draft, "whole"), target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise InputError(f"{archive} is no whole zip archive ({error}); {remedy}") from None
    inside = [path for path in target.iterdir() if path.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target
