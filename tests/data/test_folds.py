"""Folds that are made: stratified, a source in one fold, the same every time, kept, and found by everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from audio_files import make_folder, tone, tree
from hypothesis import given, settings
from hypothesis import strategies as st

from audioclf_lib._support.errors import InputError
from audioclf_lib.data import Dataset, dataset_facts, load_dataset
from audioclf_lib.data.folds import make_folds


def make_sounds(folder: Path, **counts: int) -> Path:
    """A folder for each class, with so many files, four of each source: ``dog/dog0_0.wav``, ``dog0_1.wav``, ..."""
    for number, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            name = f"{label}{index // 4}_{index % 4}.wav"
            sf.write(folder / label / name, tone(0.05, 4_000, 100 + 300 * number + index), 4_000)
    return folder


def load(folder: Path, **options: object) -> Dataset:
    return load_dataset(folder, data_dir=folder.parent / "data", **options)  # type: ignore[arg-type]


def clips_of(sources: dict[str, list[str]]) -> pd.DataFrame:
    rows = [(label, source) for label, given in sources.items() for source in given]
    return pd.DataFrame(rows, columns=["label", "source"])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(3, 6).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.lists(st.integers(1, 5), min_size=n, max_size=n + 6), min_size=2, max_size=4),
        )
    )
)
def test_every_fold_has_every_class_and_no_source_of_another_fold(given: tuple[int, list[list[int]]]) -> None:
    n_folds, sizes = given
    labels = {
        f"class {label}": [f"{label}-{source}" for source, size in enumerate(of_class) for _ in range(size)]
        for label, of_class in enumerate(sizes)
    }
    clips = clips_of(labels)
    folds = make_folds("sounds", clips, n_folds)
    assert set(folds) == set(range(1, n_folds + 1))
    assert (pd.crosstab(clips["label"], folds) > 0).all(axis=None)
    assert (clips.groupby("source").apply(lambda rows: len(set(folds[rows.index])), include_groups=False) == 1).all()
    np.testing.assert_array_equal(make_folds("sounds", clips, n_folds), folds)


def test_a_class_forty_times_the_size_of_another_is_spread_like_it() -> None:
    clips = clips_of({"many": [f"m{n}" for n in range(200)], "few": [f"f{n}" for n in range(5)]})
    counts = pd.crosstab(clips["label"], make_folds("sounds", clips, 5))
    assert counts.loc["few"].tolist() == [1] * 5
    assert counts.loc["many"].tolist() == [40] * 5


def test_folds_are_made_once_and_used_from_then_on(tmp_path: Path) -> None:
    folder = make_sounds(tmp_path / "sounds", dog=12, cat=8)
    before = tree(folder)
    with pytest.warns(UserWarning, match="every file counts as a recording of its own"):
        first = load(folder)
    (kept,) = (tmp_path / "data" / "folds").iterdir()
    content = kept.read_bytes()
    again = load(folder)  # and says nothing
    assert again.fingerprint == first.fingerprint
    assert kept.read_bytes() == content
    assert tree(folder) == before
    assert "5 folds that were made" in first.description


def test_facts_tell_the_folds_before_they_are_kept_and_keep_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audioclf_lib.data.DEFAULT_DATA_DIR", tmp_path / "data")
    folder = make_sounds(tmp_path / "sounds", dog=12, cat=8)
    facts = dataset_facts(folder)
    assert not (tmp_path / "data").exists()
    with pytest.warns(UserWarning, match="5 folds were made"):
        assert load(folder).fingerprint == facts.fingerprint
    with pytest.warns(UserWarning, match="4 folds were made"):
        other = load(folder, make_folds=4)
    assert dataset_facts(folder).folds == (1, 2, 3, 4)
    assert dataset_facts(folder).fingerprint == other.fingerprint != facts.fingerprint


def test_what_was_asked_for_is_what_everything_else_finds(tmp_path: Path) -> None:
    folder = make_sounds(tmp_path / "sounds", dog=24, cat=24)
    with pytest.warns(UserWarning, match="4 folds were made for sounds, stratified by class; they are kept in"):
        made = load(folder, make_folds=4, source_pattern=r"^(\w+)_")
    assert set(made.folds.tolist()) == {1, 2, 3, 4}
    assert set(made.sources) == {f"{label}{n}" for label in ("dog", "cat") for n in range(6)}
    found = load(folder)
    assert found.fingerprint == made.fingerprint
    assert found.sources == made.sources


def test_the_whole_match_is_the_source_where_the_pattern_has_no_group(tmp_path: Path) -> None:
    folder = make_sounds(tmp_path / "sounds", dog=20, cat=20)
    with pytest.warns(UserWarning, match="folds were made"):
        assert load(folder, source_pattern=r"[a-z]+\d").sources[0] == "cat0"


def test_a_source_column_is_kept_together(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "sounds", folds=tuple(range(12)))
    table = pd.read_csv(folder / "labels.csv")
    table["source"] = [f"{row.label}-{row.fold // 2}" for row in table.itertuples()]
    table.drop(columns="fold").to_csv(folder / "labels.csv", index=False)
    with pytest.warns(UserWarning, match="5 folds were made for sounds, stratified by class; they are kept"):
        dataset = load(folder)
    assert len(set(zip(dataset.sources, dataset.folds.tolist(), strict=True))) == len(set(dataset.sources)) == 12


def test_files_of_equal_content_are_one_source(tmp_path: Path) -> None:
    folder = make_sounds(tmp_path / "sounds", dog=8, cat=8)
    for copy in range(3):
        (folder / "dog" / f"copy{copy}.wav").write_bytes((folder / "dog" / "dog0_0.wav").read_bytes())
    with pytest.warns(UserWarning, match="folds were made"):
        dataset = load(folder)
    twins = [n for n, clip in enumerate(dataset.clip_ids) if "copy" in clip or clip == "dog/dog0_0.wav"]
    assert len(twins) == 4
    assert len({int(dataset.folds[n]) for n in twins}) == 1


def test_a_table_of_folds_may_be_edited_or_become_labels_csv(tmp_path: Path) -> None:
    folder = make_sounds(tmp_path / "sounds", dog=8, cat=8)
    with pytest.warns(UserWarning, match="folds were made"):
        made = load(folder, make_folds=4)
    (kept,) = (tmp_path / "data" / "folds").iterdir()
    table = pd.read_csv(kept)
    table["fold"] = table["fold"] + 10
    table.to_csv(kept, index=False, lineterminator="\n")
    assert sorted(set(load(folder).folds.tolist())) == [11, 12, 13, 14]
    table["fold"] = table["fold"] - 10
    table.to_csv(folder / "labels.csv", index=False)
    given = load(folder)
    assert given.fingerprint == made.fingerprint
    assert "made" not in given.description


def test_a_folder_that_cannot_be_written_to_stops_nothing(tmp_path: Path) -> None:
    folder = make_sounds(tmp_path / "sounds", dog=8, cat=8)
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"could not be kept") as told:
        dataset = load(folder)
    assert sum("folds were made" in str(each.message) for each in told) == 1
    assert len(dataset) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"cannot have 5 folds: each class needs 5 recordings, but 'cat' has 4; .* `audioclf data .*-make-folds 4`",
        ),
        ({"make_folds": 13}, r"'cat' has 4, 'dog' has 12"),
        ({"make_folds": 2}, r"cannot have 2 folds: each class needs 3 recordings"),
        ({"make_folds": -1}, r"cannot have -1 folds"),
        ({"source_pattern": "^dog"}, r"the source pattern '\^dog' finds nothing in 'cat/cat0_0.wav'; widen it"),
        ({"source_pattern": "(x)|."}, r"finds nothing in"),
        ({"source_pattern": "("}, r"the source pattern '\(' is no regular expression"),
        ({"source_pattern": r"^[a-z]+\d", "make_folds": 3}, r"'cat' has 1"),
    ],
)
def test_folds_that_cannot_be_made_are_one_sentence(tmp_path: Path, options: dict[str, object], message: str) -> None:
    folder = make_sounds(tmp_path / "sounds", dog=12, cat=4)
    with pytest.raises(InputError, match=message):
        load(folder, **options)
    assert not (tmp_path / "data").exists()


def test_folds_of_other_clips_are_refused(tmp_path: Path) -> None:
    folder = make_sounds(tmp_path / "sounds", dog=8, cat=8)
    with pytest.warns(UserWarning, match="folds were made"):
        load(folder)
    (kept,) = (tmp_path / "data" / "folds").iterdir()
    kept.write_text("\n".join(kept.read_text().splitlines()[:-1]))
    with pytest.raises(InputError, match=r"does not list the clips of sounds, each once; delete it"):
        load(folder)


@pytest.mark.parametrize("options", [{"make_folds": 4}, {"source_pattern": "x"}])
def test_given_folds_are_not_replaced(tmp_path: Path, options: dict[str, object]) -> None:
    folder = make_folder(tmp_path / "sounds")
    with pytest.raises(InputError, match=r"labels\.csv has folds; take out its column fold"):
        load(folder, **options)
    with pytest.raises(InputError, match=r"'demo' has folds of its own"):
        load_dataset("demo", **options)  # type: ignore[arg-type]
