"""Folders as people have them: a folder for each class, ESC-50 and UrbanSound8K in their variants, archives, tables."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import soundfile as sf
from audio_files import make_esc50, make_folder, tone, tree

from audioclf_lib._support.errors import InputError
from audioclf_lib.data import Dataset, dataset_facts, dataset_slug, load_dataset
from audioclf_lib.suite.plan import resolve_dataset

pytestmark = pytest.mark.filterwarnings("ignore:.* folds were made")


def load(path: Path | str, tmp_path: Path) -> Dataset:
    return load_dataset(path, data_dir=tmp_path / "data")


def make_classes(folder: Path, *names: str, per_class: int = 5, suffix: str = ".wav") -> Path:
    """Folders of tones: ``dog``, ``train/dog``; the last part is the class."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            path = folder / name / f"{Path(name).name}.{index:05}{suffix}"
            sf.write(path, tone(0.2, frequency=100 + 50 * number + index), 8_000)
    return folder


# --- a folder for each class -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("dog", "cat"),
        ("train/dog", "train/cat"),
        ("train/dog", "train/cat", "test/dog", "test/cat"),
        ("Data/genres_original/dog", "Data/genres_original/cat"),
        ("animals/dog", "pets/small/cat"),
    ],
)
def test_the_folder_that_holds_a_sound_is_its_class_at_any_depth(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = make_classes(tmp_path / "sounds", *names)
    dataset = load(folder, tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert len(dataset) == 5 * len(names)
    for clip, label in zip(dataset.clip_ids, dataset.labels, strict=True):
        assert Path(clip).parent.name == dataset.class_names[label]
        assert (folder / clip).is_file()
    assert dataset.name.startswith("sounds-")
    assert dataset_slug(folder) == "sounds"
    assert dataset_facts(folder).class_names == ("cat", "dog")


def test_other_files_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "speech", "yes", "no", suffix=".WAV")
    before = load(folder, tmp_path).fingerprint
    make_classes(folder, "_background_noise_", "__MACOSX/yes", ".cache/no")
    for name in (".DS_Store", "Thumbs.db", "README", "yes/Thumbs.db", "yes/.DS_Store", "yes/cover.jpg", "list.txt"):
        (folder / name).write_bytes(b"no sound")
    (folder / "yes" / "._yes.00000.WAV").write_bytes(b"what macOS leaves on other disks")
    assert load(folder, tmp_path).fingerprint == before


def test_the_same_sounds_have_the_same_fingerprint_whatever_order_the_disk_has(tmp_path: Path) -> None:
    one = make_classes(tmp_path / "one", "b", "a")
    other = tmp_path / "two"
    for path in sorted(one.rglob("*.wav"), reverse=True):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other / path.parent.name)
    assert load(one, tmp_path).fingerprint == load(other, tmp_path).fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("dog", "cat", "../sounds"), r"sounds holds sounds, but is not the folder of one class alone"),
        (("dog", "cat", "dog/puppy"), r"puppy holds sounds, but is not the folder of one class alone"),
        (("dog/train", "dog/test", "cat/train"), r"cat/train holds sounds, but its name is no class's"),
        (("fold1", "fold2"), r"fold1 holds sounds, but its name is no class's"),
        (("Dog", "dog"), r"sounds: the labels 'Dog' and 'dog' differ by case alone; write them alike"),
        (("dog",), r"has the classes \['dog'\]; give two or more"),
    ],
)
def test_folders_that_are_ambiguous_are_one_sentence(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    (tmp_path / "sounds").mkdir()
    for name in names:
        make_classes(tmp_path / "sounds", name)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "sounds", tmp_path)
    assert not (tmp_path / "data").exists()


# --- published data sets ---------------------------------------------------------------------------------------------


@pytest.fixture
def esc50(tmp_path: Path) -> Path:
    return make_esc50(tmp_path / "ESC-50-master", {"dog": True, "pig": False})


@pytest.mark.parametrize("audio", ["audio", "audio/audio", "audio/audio/44100", "audio/44100"])
@pytest.mark.parametrize("table", ["meta/esc50.csv", "esc50.csv"])
@pytest.mark.parametrize("around", [".", "archive", "ESC-50-master/ESC-50-master"])
def test_esc50_as_kaggle_has_it(esc50: Path, tmp_path: Path, audio: str, table: str, around: str) -> None:
    expected = dataset_facts(esc50)
    folder = tmp_path / "kaggle" / around
    (folder / audio).mkdir(parents=True)
    for path in (esc50 / "audio").iterdir():
        path.rename(folder / audio / path.name)
    (folder / table).parent.mkdir(exist_ok=True)
    (esc50 / "meta" / "esc50.csv").rename(folder / table)
    assert dataset_facts(tmp_path / "kaggle") == expected
    assert dataset_slug(tmp_path / "kaggle") == "esc50"


def make_urbansound8k(folder: Path, *, of_kaggle: bool) -> Path:
    """A small copy: ten folds, two classes whose targets are not in the order of their names."""
    table = folder / ("." if of_kaggle else "metadata") / "UrbanSound8K.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for fold in range(1, 11):
        for target, name in enumerate(["siren", "air_conditioner"]):
            source = 1_000 * fold + target
            path = folder / ("." if of_kaggle else "audio") / f"fold{fold}" / f"{source}-{target}-0-0.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, tone(0.5, 22_050, 100 * target + 10 * fold + 200), 22_050)
            rows.append([path.name, source, 0, 0.5, 1, fold, target, name])
    columns = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    pd.DataFrame(rows, columns=columns).to_csv(table, index=False)
    return folder


@pytest.mark.parametrize("of_kaggle", [False, True])
def test_urbansound8k(tmp_path: Path, of_kaggle: bool) -> None:
    dataset = load(make_urbansound8k(tmp_path / "UrbanSound8K", of_kaggle=of_kaggle), tmp_path)
    assert dataset.name == f"urbansound8k-{dataset.fingerprint[:8]}"
    assert dataset.class_names == ("siren", "air conditioner")
    assert dataset.waveforms.shape == (20, 64_000)
    assert dataset.clip_ids[:2] == ("1000-0-0-0", "1001-1-0-0")
    assert dataset.sources[:2] == ("1000", "1001")
    assert dataset.folds.tolist() == [fold for fold in range(1, 11) for _ in range(2)]
    assert dataset_slug(tmp_path / "UrbanSound8K") == "urbansound8k"
    for option in (":4s", ":esc10"):
        with pytest.raises(InputError, match="leave it out"):
            load(f"{tmp_path / 'UrbanSound8K'}{option}", tmp_path)


# --- archives and tables ---------------------------------------------------------------------------------------------


def zipped(folder: Path, top: str = "") -> Path:
    archive = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(archive, "w") as content:
        for path in sorted(folder.rglob("*")):
            content.write(path, Path(top, path.relative_to(folder)))
        content.writestr("__MACOSX/._labels.csv", b"what macOS adds")
    return archive


@pytest.mark.parametrize("top", ["", "sounds"])
def test_a_zip_of_a_folder_is_the_folder(tmp_path: Path, top: str) -> None:
    for folder in (
        make_folder(tmp_path / "labelled"),
        make_classes(tmp_path / "classes", "dog", "cat"),
        make_urbansound8k(tmp_path / "us8k", of_kaggle=False),
    ):
        expected, archive = load(folder, tmp_path), zipped(folder, top)
        shutil.rmtree(folder)
        for _ in range(2):
            dataset = load(archive, tmp_path)
            assert dataset.fingerprint == expected.fingerprint
            assert dataset.name.rpartition("-")[0] in ("labelled", "classes", "urbansound8k")
        assert archive.is_file()
    assert len(list((tmp_path / "data" / "unpacked").iterdir())) == 3, "each is unpacked once"


def test_a_zip_that_changes_is_unpacked_anew(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sounds")
    first = load(zipped(folder), tmp_path).fingerprint
    sf.write(folder / "low-1.wav", tone(frequency=999), 16_000)
    assert load(zipped(folder), tmp_path).fingerprint not in (first, None)


def test_a_zip_may_have_a_clip_length(tmp_path: Path) -> None:
    archive = zipped(make_folder(tmp_path / "sounds"))
    assert load(f"{archive}:2.5s", tmp_path).waveforms.shape == (6, 40_000)


def test_nothing_of_a_zip_leaves_its_folder(tmp_path: Path) -> None:
    archive = zipped(make_folder(tmp_path / "sounds"))
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr("../../evil.txt", b"x")
        content.writestr("/evil.txt", b"x")
    load(archive, tmp_path)
    evil = [path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("evil.txt")]
    assert set(evil) == {("data", "unpacked")}
    assert not Path("/evil.txt").exists()


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda content: b"no archive"])
def test_a_damaged_zip_is_one_sentence_and_leaves_nothing(tmp_path: Path, damage: object) -> None:
    archive = zipped(make_folder(tmp_path / "sounds"))
    archive.write_bytes(damage(archive.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"sounds\.zip is no whole zip archive .*; copy it anew"):
        load(archive, tmp_path)
    assert tree(tmp_path / "data") == {}


def test_a_zip_larger_than_the_disk_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(make_folder(tmp_path / "sounds"))
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"sounds\.zip needs more room than there is in .*unpacked; make some there"):
        load(archive, tmp_path)
    assert tree(tmp_path / "data") == {}


@pytest.mark.parametrize("name", ["labels.csv", "Labels.CSV", "mine.csv"])
def test_the_path_of_the_table_stands_for_its_folder(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "Birds")
    (folder / "labels.csv").rename(folder / name)
    dataset = load(folder / name, tmp_path)
    assert dataset.name == f"birds-{dataset.fingerprint[:8]}"
    assert dataset_slug(folder / name) == "birds"
    if name != "mine.csv":
        assert load(folder, tmp_path).fingerprint == dataset.fingerprint


def test_archives_and_tables_are_found_from_other_working_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "sounds")
    zipped(folder)
    monkeypatch.chdir(tmp_path)
    assert resolve_dataset("sounds.zip") == str(tmp_path / "sounds.zip")
    assert resolve_dataset("sounds.zip:4s") == str(tmp_path / "sounds.zip:4s")
    assert resolve_dataset("sounds/labels.csv") == str(folder / "labels.csv")
    assert resolve_dataset("nothing.zip") == "nothing.zip"
