"""Downloading ESC-10, against a server on this machine: verified, safe, resumed by retry, wholly or not at all."""

from __future__ import annotations

import io
import resource
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import Server, make_zip
from audio_files import tree

from audioclf_lib._support.errors import InputError
from audioclf_lib.data import load_dataset
from audioclf_lib.data.download import download_archive, unpack
from audioclf_lib.data.esc import ESC10_URL, locate_esc10, read_registry

TOP = "ESC-10-" + ESC10_URL.rpartition("/")[2].removesuffix(".zip")


@pytest.fixture(scope="module")
def esc10_zip(real_esc10: Path) -> bytes:
    paths = [*read_registry()["path"], "README.md"]
    return make_zip({f"{TOP}/": b""} | {f"{TOP}/{path}": (real_esc10 / path).read_bytes() for path in paths})


@pytest.fixture(autouse=True)
def no_local_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIOCLF_DATA", raising=False)


def accept(folder: Path) -> None:
    """A check that finds no fault."""


def test_esc10_is_downloaded_verified_and_then_found(
    tmp_path: Path, esc10_zip: bytes, serve: Callable[..., Server], capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve(esc10_zip)
    folder = locate_esc10(tmp_path, url=server.url)
    assert set(tree(tmp_path)) == {f"ESC-10/{path}" for path in [*read_registry()["path"], "README.md"]}
    assert "100%" in capfd.readouterr().err, "a progress bar was shown"
    assert locate_esc10(tmp_path, url=server.url) == folder
    assert server.requests == 1
    assert load_dataset("esc10", data_dir=tmp_path).name == "esc10"


def test_a_broken_transfer_is_tried_again(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(make_zip({"top/file.txt": b"content" * 10_000}))
    server.broken = 1
    download_archive(server.url, tmp_path / "data", accept, remedy="wait", retries=1)
    assert server.requests == 2
    assert tree(tmp_path / "data") == {"file.txt": b"content" * 10_000}


def test_processes_that_want_it_at_once_fetch_it_once(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(make_zip({"top/file.txt": b"content"}))

    def fetch() -> None:
        download_archive(server.url, tmp_path / "data", accept, remedy="wait")

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == 1
    assert set(tree(tmp_path)) == {"data/file.txt"}


def test_an_altered_clip_is_refused_by_name(tmp_path: Path, esc10_zip: bytes, serve: Callable[..., Server]) -> None:
    with zipfile.ZipFile(io.BytesIO(esc10_zip)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files[f"{TOP}/002 - Rain/1-17367-A.ogg"] = b"not what was published"
    server = serve(make_zip(files))
    with pytest.raises(InputError, match=r"'002 - Rain/1-17367-A.ogg' has the wrong checksum; set AUDIOCLF_DATA"):
        locate_esc10(tmp_path, url=server.url)
    assert set(tree(tmp_path)) == set()


def test_a_missing_archive_is_one_sentence(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(b"", status=404)
    with pytest.raises(InputError, match=r"cannot download .*archive\.zip \(status 404\); check the network"):
        locate_esc10(tmp_path, url=server.url, retries=0)
    assert set(tree(tmp_path)) == set()


def test_no_network_is_one_sentence(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(b"")
    server.close()  # its port now refuses connections
    with pytest.raises(InputError, match=r"\(ConnectionError\); check the network .* or set AUDIOCLF_DATA"):
        locate_esc10(tmp_path, url=server.url, retries=0)
    assert set(tree(tmp_path)) == set()


def test_no_space_is_one_sentence_and_leaves_nothing(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(make_zip({"top/file.bin": bytes(2**20)}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))  # no file may grow beyond 64 KiB
    try:
        with pytest.raises(InputError, match=r"cannot write to .* File too large; make space there, or set"):
            locate_esc10(tmp_path, url=server.url, retries=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert set(tree(tmp_path)) == set()


def test_a_data_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"cannot write to .*; make space there, or set AUDIOCLF_DATA"):
        locate_esc10(tmp_path / "file" / "data", url="http://127.0.0.1:9/", retries=0)


def test_a_data_folder_that_cannot_be_locked_is_one_sentence_with_another_way_out(tmp_path: Path) -> None:
    (tmp_path / ".ESC-10.lock").mkdir()
    with pytest.raises(InputError, match=r"cannot lock .*; make space there, or set AUDIOCLF_DATA"):
        locate_esc10(tmp_path, url="http://127.0.0.1:9/", retries=0)


def test_a_bomb_that_lies_about_its_size_cannot_write_more_than_it_says(tmp_path: Path) -> None:
    content = make_zip({"top/zeros": bytes(1_000_000)}, zipfile.ZIP_DEFLATED)
    said = (1_000_000).to_bytes(4, "little")
    (tmp_path / "lie.zip").write_bytes(content.replace(said, (100).to_bytes(4, "little")))
    with pytest.raises(InputError, match="no whole zip archive"):
        unpack(tmp_path / "lie.zip", tmp_path / "data")
    assert sum(map(len, tree(tmp_path / "data").values())) <= 100


def test_a_damaged_compressed_file_is_one_sentence(tmp_path: Path) -> None:
    content = bytearray(make_zip({"top/file.txt": bytes(range(256)) * 100}, zipfile.ZIP_DEFLATED))
    content[45:60] = bytes(15)
    (tmp_path / "data.zip").write_bytes(content)
    with pytest.raises(InputError, match="no whole zip archive"):
        unpack(tmp_path / "data.zip", tmp_path / "data")
