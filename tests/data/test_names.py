"""Names of data sets: the same only for the same content, fit for a folder, and known without the recordings."""

from __future__ import annotations

import re
import shutil
import unicodedata
from pathlib import Path

import pytest
from audio_files import make_esc50, make_folder, tone
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from soundfile import write as write_sound

from audioclf_lib.config import KnownDataset
from audioclf_lib.data import dataset_facts, dataset_slug, load_dataset
from audioclf_lib.data.folder import folder_slug


class Named(BaseModel):
    """What the name of a run folder's data set must look like."""

    name: str = Field(pattern=r"^\w[\w.-]*$", max_length=80)


def make_other(folder: Path) -> Path:
    """A folder like ``make_folder``'s in which one recording differs."""
    make_folder(folder)
    write_sound(folder / "high-2.wav", tone(frequency=999), 16_000)
    return folder


def test_folders_of_one_base_name_with_different_content_have_different_names(tmp_path: Path) -> None:
    here, there = make_folder(tmp_path / "a" / "birds"), make_other(tmp_path / "b" / "birds")
    names = {dataset_facts(here).name, dataset_facts(there).name}
    assert len(names) == 2
    assert all(re.fullmatch(r"birds-[0-9a-f]{8}", name) for name in names)


def test_a_folder_and_the_same_with_another_clip_length_have_different_names(tmp_path: Path) -> None:
    birds = make_folder(tmp_path / "birds")
    assert dataset_facts(birds).name != dataset_facts(f"{birds}:2s").name
    assert dataset_slug(birds) == dataset_slug(f"{birds}:2s") == "birds"


@pytest.mark.parametrize(
    ("folder", "slug"),
    [
        ("鸟声", "鸟声"),
        ("звуки", "звуки"),
        ("पक्षी", "पक्षी"),
        ("My Sounds (2)", "my-sounds-2"),
        ("G\N{LATIN SMALL LETTER A}\N{COMBINING DIAERESIS}sse", "gässe"),
        ("m²", "m"),
        ("...", "folder"),
        ("🐓", "folder"),
        ("demo", "folder-demo"),
        ("ESC50", "folder-esc50"),
        ("x" * 200, "x" * 60),
    ],
)
def test_a_slug_keeps_letters_of_every_script(tmp_path: Path, folder: str, slug: str) -> None:
    dataset = load_dataset(make_folder(tmp_path / folder), data_dir=tmp_path / "data")
    assert dataset.name == f"{slug}-{dataset.fingerprint[:8]}"
    assert Named(name=dataset.name)
    assert dataset_slug(tmp_path / folder) == slug


def test_the_same_content_has_the_same_name_wherever_it_lies(tmp_path: Path) -> None:
    birds = make_folder(tmp_path / "birds")
    moved = shutil.copytree(birds, tmp_path / "elsewhere" / "Birds")
    assert dataset_facts(moved) == dataset_facts(birds)


# What file systems allow; halves of surrogate pairs stand for bytes that are no UTF-8.
CHARACTERS = st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.characters(
    min_codepoint=0xDC80, max_codepoint=0xDCFF
)


@given(st.text(alphabet=CHARACTERS, min_size=1, max_size=80).filter(lambda name: name.strip(".")))
def test_every_folder_name_gives_a_slug_that_can_name_a_folder(name: str) -> None:
    slug = folder_slug(Path("/nowhere") / name)
    assert Named(name=f"{slug}-1a2b3c4d")
    assert len(f"{slug}-1a2b3c4d".encode()) <= 255
    assert unicodedata.is_normalized("NFC", slug)
    assert slug not in ("demo", "esc10", "esc50", "esc50-esc10")


def test_esc50_is_named_by_its_content_too(tmp_path: Path) -> None:
    one = make_esc50(tmp_path / "one", {"dog": True, "pig": False})
    other = make_esc50(tmp_path / "other", {"dog": True, "cow": False})
    assert dataset_facts(one).name != dataset_facts(other).name
    assert re.fullmatch(dataset_slug(one) + r"-[0-9a-f]{8}", dataset_facts(one).name)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("demo", "demo"),
        ("esc10", "esc10"),
        ("birds", "birds"),
        ("a/Birds", "birds"),
        ("birds:4s", "birds"),
        ("esc10/", "folder-esc10"),
        ("ESC-10", "esc10"),
        ("ESC-50", "esc50"),
        ("ESC-50:esc10", "esc50-esc10"),
    ],
)
def test_the_slug_is_known_when_the_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, slug: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dataset_slug(name) == slug


def test_the_facts_of_a_data_set_are_those_of_the_loaded_one(tmp_path: Path) -> None:
    for name in ("demo", make_folder(tmp_path / "sounds")):
        loaded = load_dataset(name)
        folds = tuple(sorted(set(loaded.folds.tolist())))
        assert dataset_facts(name) == KnownDataset(loaded.name, loaded.fingerprint, folds, loaded.class_names)
