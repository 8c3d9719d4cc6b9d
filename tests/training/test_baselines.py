"""The baselines: what they learn from, what they answer, and that they are fitted once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchaudio
from tiny import make_dataset, make_tones, with_other_sound

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import rotation
from audioclf_lib.data import Dataset
from audioclf_lib.metrics.baselines import TITLES, baseline_answers, baseline_scores, baseline_table
from audioclf_lib.runs.store import RunStore
from audioclf_lib.training import baselines as module
from audioclf_lib.training.baselines import FRAME_HOP, FRAME_SIZE, N_MFCC, fit_baselines, fold_pairs, mfcc_statistics

PROBABILITIES = ["p_0", "p_1", "p_2"]


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "N_TREES", 20)


def answers(table: pd.DataFrame, baseline: str, val_fold: int, test_fold: int) -> np.ndarray:
    rows = table.query("baseline == @baseline and val_fold == @val_fold and test_fold == @test_fold")
    return rows[PROBABILITIES].to_numpy()


# ------------------------------------------------------------------------------------------------------------ features


def by_hand(waveform: np.ndarray) -> np.ndarray:
    """Mean and deviation over the frames with a sample of 0.0001 or more, each frame looked at by itself."""
    mel = {"n_fft": FRAME_SIZE, "hop_length": FRAME_HOP, "n_mels": 40}
    frames = torchaudio.transforms.MFCC(16_000, N_MFCC, melkwargs=mel)(torch.from_numpy(waveform)).numpy().T
    starts = [FRAME_HOP * number - FRAME_SIZE // 2 for number in range(len(frames))]
    peaks = [np.abs(waveform[max(0, start) : start + FRAME_SIZE]).max() for start in starts]
    heard = [frame for frame, peak in zip(frames, peaks, strict=True) if peak >= 1e-4] or list(frames)
    return np.concatenate([np.mean(heard, axis=0), np.std(heard, axis=0)])


def test_features_are_statistics_over_the_frames_that_are_heard() -> None:
    waveforms = make_dataset().waveforms.copy()
    waveforms[1, 5_000:] = 0
    waveforms[2, :9_999] = 9e-5
    for row, found in enumerate(mfcc_statistics(waveforms)):
        np.testing.assert_allclose(found, by_hand(waveforms[row]), rtol=1e-4, atol=1e-3)


def test_silence_behind_a_sound_changes_its_features_little() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    short, padded = mfcc_statistics(sound[None]), mfcc_statistics(np.pad(sound, (0, 32_000))[None])
    assert np.abs(short - padded)[0, 1:N_MFCC].max() < 2


def test_a_clip_that_is_silent_throughout_keeps_all_its_frames() -> None:
    (found,) = mfcc_statistics(np.zeros((1, 16_000), dtype=np.float32))
    assert np.isfinite(found).all()
    assert (found[N_MFCC:] < 1e-3).all(), "they are all alike"


def test_a_clip_has_the_same_features_beside_a_louder_one() -> None:
    quiet, loud = make_dataset().waveforms[1:2] * 1e-3, make_dataset().waveforms[2:3]
    np.testing.assert_array_equal(mfcc_statistics(quiet)[0], mfcc_statistics(np.concatenate([loud, quiet]))[1])


# --------------------------------------------------------------------------------------------------------------- folds


def test_the_rotation_has_the_folds_of_the_split_fits() -> None:
    assert rotation([5, 2, 1, 1, 3, 4]) == [(2, 1), (3, 2), (4, 3), (5, 4), (1, 5)]


def test_every_pair_of_folds_is_there_and_each_answers_its_test_clips_once(tmp_path: Path) -> None:
    dataset = make_dataset(folds=4)
    table = fit_baselines(dataset, runs_dir=tmp_path)
    assert set(map(tuple, table[["val_fold", "test_fold"]].to_numpy())) == {
        (val_fold, test_fold) for val_fold in range(1, 5) for test_fold in range(1, 5) if val_fold != test_fold
    }
    assert (table["fold"] == table["test_fold"]).all()
    assert not table.duplicated(["baseline", "val_fold", "test_fold", "clip_id"]).any()
    assert list(table) == [
        *("baseline", "val_fold", "test_fold", "clip_id", "source", "fold", "y_true"),
        *PROBABILITIES,
    ]
    np.testing.assert_allclose(table[PROBABILITIES].sum(axis=1), 1)


def test_of_many_folds_only_the_rotation_and_the_k_fold_on_the_first_are_fitted() -> None:
    pairs = fold_pairs(make_dataset(folds=9))
    assert set(pairs) == {*rotation(range(1, 10)), *((val_fold, 1) for val_fold in range(2, 10))}


@pytest.mark.parametrize("folds", [[1], [2], [1, 2]], ids=["test fold", "validation fold", "both"])
def test_labels_of_clips_that_are_not_trained_on_change_no_answer(folds: list[int], tmp_path: Path) -> None:
    dataset = make_dataset(folds=4, clips_per_class=2)
    turned = np.where(np.isin(dataset.folds, folds), (dataset.labels + 1) % 3, dataset.labels)
    tables = [
        fit_baselines(each, runs_dir=tmp_path / str(number))
        for number, each in enumerate([dataset, replace(dataset, labels=turned)])
    ]
    for baseline in TITLES:
        before, after = (answers(table, baseline, 2, 1) for table in tables)
        np.testing.assert_array_equal(before, after)


def test_the_sound_of_training_clips_counts_and_that_of_validation_clips_does_not(tmp_path: Path) -> None:
    dataset = make_dataset(folds=4, clips_per_class=2)
    changed = {fold: fit_baselines(with_other_sound(dataset, [fold]), runs_dir=tmp_path / str(fold)) for fold in (2, 3)}
    usual = answers(fit_baselines(dataset, runs_dir=tmp_path), "forest", 2, 1)
    np.testing.assert_array_equal(answers(changed[2], "forest", 2, 1), usual)
    assert (answers(changed[3], "forest", 2, 1) != usual).any()


# ------------------------------------------------------------------------------------------------------------- answers


def unbalanced() -> Dataset:
    """A clip of each class in each fold, but two of ``click`` in folds 3 and 4, and three of ``hum`` in fold 2."""
    dataset = make_dataset(folds=4, clips_per_class=3)
    number_in_class = np.tile(np.arange(3), 12)
    wanted = np.ones(36, dtype=int)
    wanted[(dataset.labels == 2) & (dataset.folds >= 3)] = 2
    wanted[(dataset.labels == 0) & (dataset.folds == 2)] = 3
    kept = number_in_class < wanted
    names = tuple(np.asarray(dataset.clip_ids)[kept].tolist())
    return replace(
        dataset,
        **{name: getattr(dataset, name)[kept] for name in ("waveforms", "labels", "folds")},
        clip_ids=names,
        sources=names,
    )


def test_the_majority_answers_the_shares_of_the_training_clips(tmp_path: Path) -> None:
    found = answers(fit_baselines(unbalanced(), runs_dir=tmp_path), "majority", 2, 1)
    np.testing.assert_array_equal(found, [[2 / 8, 2 / 8, 4 / 8]] * 3)


def test_of_classes_that_are_equally_common_the_majority_answers_the_first(tmp_path: Path) -> None:
    dataset = make_dataset(clips_per_class=2)
    table = fit_baselines(dataset, runs_dir=tmp_path)
    confusion = baseline_scores(table, dataset.class_names, "majority").confusion
    np.testing.assert_array_equal(confusion, [[6, 0, 0], [6, 0, 0], [6, 0, 0]])


def test_the_forest_tells_tones_apart(tmp_path: Path) -> None:
    dataset = make_tones()
    table = fit_baselines(dataset, runs_dir=tmp_path)
    assert baseline_scores(table, dataset.class_names, "forest").accuracy == 1
    shown = baseline_table(table, dataset.class_names)
    assert shown.index.tolist() == ["1", "2", "3", "all"]
    assert shown["Clips"].tolist() == [6, 6, 6, 18]
    assert shown["Random forest"].tolist() == [1] * 4
    assert shown["Commonest class"].tolist() == [1 / 3] * 4


# -------------------------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("pairs", [None, [(2, 1)], [(2, 1), (3, 1), (4, 1)]], ids=["rotation", "split", "k-fold"])
def test_scores_and_answers_are_of_the_fits_that_were_chosen(
    pairs: list[tuple[int, int]] | None, tmp_path: Path
) -> None:
    dataset = make_dataset(folds=4, clips_per_class=2)
    table = fit_baselines(dataset, runs_dir=tmp_path)
    right: dict[str, list[bool]] = {}
    for row in table[table["baseline"] == "forest"].itertuples():
        if (row.val_fold, row.test_fold) in (pairs or rotation(dataset.folds)):
            guess = max(range(3), key=lambda label, row=row: getattr(row, f"p_{label}"))
            right.setdefault(row.clip_id, []).append(guess == row.y_true)
    found = baseline_answers(table, "forest", pairs)
    assert found["right"].to_dict() == {clip_id: np.mean(each) for clip_id, each in right.items()}
    assert found["source"].to_dict() == {clip_id: dataset.sources[dataset.clip_ids.index(clip_id)] for clip_id in right}
    scores = baseline_scores(table, dataset.class_names, "forest", pairs)
    assert (scores.level, scores.n) == ("clip", sum(map(len, right.values())))
    assert scores.accuracy == pytest.approx(found["right"].mean())


@pytest.mark.parametrize(("baseline", "pair"), [("tree", (2, 1)), ("forest", (9, 1))])
def test_what_the_table_does_not_hold_is_told(baseline: str, pair: tuple[int, int], tmp_path: Path) -> None:
    table = fit_baselines(make_dataset(), runs_dir=tmp_path)
    with pytest.raises(InputError, match=f"no '{baseline}' with validation fold {pair[0]} and test fold {pair[1]}"):
        baseline_scores(table, ("hum", "hiss", "click"), baseline, [pair])


# ---------------------------------------------------------------------------------------------------------------- kept


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that baselines were fitted with, in order."""
    seeds: list[int] = []
    answer_all = module.answer_all

    def counted(dataset: Dataset, features: np.ndarray, seed: int) -> pd.DataFrame:
        seeds.append(seed)
        return answer_all(dataset, features, seed)

    monkeypatch.setattr(module, "answer_all", counted)
    return seeds


def test_the_same_seed_gives_the_same_answers_and_another_one_others(tmp_path: Path) -> None:
    first, again, other = (
        fit_baselines(make_dataset(), runs_dir=tmp_path / name, seed=seed)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_they_are_fitted_once_and_read_afterwards(tmp_path: Path, fits: list[int]) -> None:
    made = fit_baselines(make_dataset(), runs_dir=tmp_path)
    pd.testing.assert_frame_equal(fit_baselines(make_dataset(), runs_dir=tmp_path), made)
    assert fits == [0]
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file == tmp_path / "tiny" / "baselines-00000000.parquet"
    assert RunStore(tmp_path).find() == []


def test_another_seed_version_or_content_is_fitted_anew(
    tmp_path: Path, fits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_baselines(make_dataset(), runs_dir=tmp_path)
    fit_baselines(make_dataset(), runs_dir=tmp_path, seed=5)
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    fit_baselines(make_dataset(), runs_dir=tmp_path, seed=5)
    same_file = replace(make_dataset(), fingerprint="0" * 8 + "1" * 8)
    fit_baselines(same_file, runs_dir=tmp_path, seed=5)
    assert fits == [0, 5, 5, 5]


def test_a_damaged_file_is_fitted_anew_wherever_the_damage_is(tmp_path: Path) -> None:
    dataset, store = make_dataset(), RunStore(tmp_path)
    made = fit_baselines(dataset, runs_dir=tmp_path)
    (file,) = tmp_path.rglob("*.parquet")
    whole = file.read_bytes()
    for place in range(0, len(whole), 61):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
        found = store.load_baselines(dataset)
        if found is not None and found.attrs == made.attrs:
            pd.testing.assert_frame_equal(found, made, check_dtype=False)
    for content in (b"", whole[:-5], b"no table"):
        file.write_bytes(content)
        assert store.load_baselines(dataset) is None
        pd.testing.assert_frame_equal(fit_baselines(dataset, runs_dir=tmp_path), made)
        assert store.load_baselines(dataset) is not None


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write .*; free space or choose another runs_dir"):
        fit_baselines(make_dataset(), runs_dir=tmp_path / "runs")
