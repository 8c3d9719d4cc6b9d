"""Which clips, recordings and classes are wrong, held against small tables whose answers are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import DEMO, write_run

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, KnownDataset
from audioclf_lib.metrics.errors import (
    accuracy_by_source,
    answers_of_fits,
    answers_to_silence,
    hard_clips,
    recall_by_class,
)
from audioclf_lib.runs.store import Run, RunStore

CLASSES = ("dog", "rain", "sea")
THREE = replace(DEMO, class_names=CLASSES)
OTHER = replace(THREE, fingerprint="fedcba9876543210")
SURE = 0.8  # probability of every hand-made answer


def kfold(folder: Path, model: str = "cnn", **options: Any) -> list[Run]:
    """The four fits of an experiment on ten classes, with drawn answers."""
    configs = Experiment(model=model, epochs=1).fits(DEMO)
    return [write_run(RunStore(folder), config, n_windows=3, **options) for config in configs]


def hand_made(windows: Iterable[tuple[str, str, str, bool]], dataset: KnownDataset = THREE, **settings: Any) -> Run:
    """A fit whose test predictions are these windows: clip, true class, answer, whether silent."""
    (config,) = Experiment(**{"model": "cnn", "protocol": "split", "epochs": 1} | settings).fits(dataset)
    table = pd.DataFrame(windows, columns=["clip_id", "true", "answer", "silent"])
    names = list(dataset.class_names)
    others = (1 - SURE) / (len(names) - 1)
    is_answer = table["answer"].to_numpy()[:, None] == np.array(names)
    probabilities = pd.DataFrame(np.where(is_answer, SURE, others)).add_prefix("p_")
    table = table.assign(
        split="test",
        source=table["clip_id"].str.split("-").str[0],
        fold=config.test_fold,
        window_index=table.groupby("clip_id").cumcount(),
        y_true=table["true"].map(names.index),
    )
    run = Run(Path(), config)
    vars(run)["predictions"] = table.join(probabilities)
    return run


def answered(clips: Mapping[str, tuple[str, Sequence[str]]], architecture: str = "CNN") -> pd.DataFrame:
    """A table of answers: clip (``source-letter``) -> its class and what each fit answers."""
    rows = [
        (architecture, f"{architecture} {fit}", clip, clip.split("-")[0], 1, true, said, SURE, true == said)
        for clip, (true, all_said) in clips.items()
        for fit, said in enumerate(all_said)
    ]
    columns = ["architecture", "fit_id", "clip_id", "source", "fold", "y_true", "answer", "confidence", "right"]
    names = pd.CategoricalDtype(CLASSES)
    return pd.DataFrame(rows, columns=columns).astype({"y_true": names, "answer": names})


# ------------------------------------------------------------------------------------------------------ answers of fits


def test_the_answers_have_the_clip_accuracy_that_the_fits_were_saved_with(tmp_path: Path) -> None:
    runs = kfold(tmp_path) + kfold(tmp_path, "transformer")
    answers = answers_of_fits(runs)
    assert len(answers) == 8 * 10
    accuracies = answers.groupby("fit_id")["right"].mean()
    for run in runs:
        assert accuracies[run.config.fit_id] == pytest.approx(run.metrics["scores"]["test"]["clip"]["accuracy"])
    assert dict.fromkeys(answers["architecture"]) == dict.fromkeys(run.config.model_title for run in runs)


def test_every_row_says_which_clip_it_is_about(tmp_path: Path) -> None:
    run, *_ = kfold(tmp_path, silent_windows=0, skill=1.0)
    vars(run)["predictions"] = run.predictions.sample(frac=1, random_state=0)
    for row in answers_of_fits([run]).itertuples():
        fold, label, _ = row.clip_id.removesuffix(".wav").split("-")
        assert (row.fold, row.source, row.y_true) == (int(fold), row.clip_id[:-4], DEMO.class_names[int(label)])
        assert (row.answer, row.right) == (row.y_true, True)


def test_silent_windows_have_no_vote_and_the_confidence_is_the_mean_of_the_others() -> None:
    windows = [("1-A", "dog", "dog", False), *[("1-A", "dog", "sea", True)] * 2]
    (row,) = answers_of_fits([hand_made(windows)]).itertuples()
    assert (row.answer, row.right, row.confidence) == ("dog", True, pytest.approx(SURE))


def test_a_fit_of_two_experiments_counts_once(tmp_path: Path) -> None:
    runs = kfold(tmp_path)
    split = Experiment(model="cnn", protocol="split", epochs=1).fits(DEMO)
    shared = [RunStore(tmp_path).load(config) for config in split]
    assert shared[0].config.fit_id in {run.config.fit_id for run in runs}
    pd.testing.assert_frame_equal(answers_of_fits(runs + shared), answers_of_fits(runs))
    pd.testing.assert_frame_equal(answers_to_silence(runs + shared), answers_to_silence(runs))


def test_fits_with_a_test_fold_each_ask_about_every_clip_once(tmp_path: Path) -> None:
    configs = [Experiment(model="cnn", protocol="split", epochs=1, test_fold=fold).fits(DEMO)[0] for fold in DEMO.folds]
    answers = answers_of_fits([write_run(RunStore(tmp_path), config, n_windows=3) for config in configs])
    assert answers["clip_id"].is_unique
    assert (answers.groupby("fit_id")["fold"].nunique() == 1).all()
    assert len(answers) == 5 * 10
    assert recall_by_class(answers)["CNN"].mean() == pytest.approx(answers["right"].mean())


@pytest.mark.parametrize("analyse", [answers_of_fits, answers_to_silence])
def test_what_cannot_be_analysed_is_refused(analyse: Any) -> None:
    dog, other = hand_made([("1-A", "dog", "dog", False)]), hand_made([("1-A", "dog", "dog", False)], OTHER)
    with pytest.raises(InputError, match=r"no fit .* train one"):
        analyse([])
    with pytest.raises(InputError, match=f"{dog.config.fit_id} and {other.config.fit_id} .* one data set at a time"):
        analyse([dog, other])
    vars(dog)["predictions"] = dog.predictions.assign(split="train")
    with pytest.raises(InputError, match=f"{dog.config.fit_id} holds no predictions of the test fold; train it again"):
        analyse([dog])


# ----------------------------------------------------------------------------------------------------------- hard clips

CLIPS = {
    "1-A": ("dog", ["rain", "sea", "sea", "dog"]),
    "2-A": ("dog", ["rain", "rain", "dog", "dog"]),
    "3-A": ("rain", ["sea", "dog", "sea", "sea"]),
    "4-A": ("sea", ["sea", "sea", "sea", "sea"]),
}


def test_clips_that_most_fits_get_wrong_come_hardest_first_with_their_commonest_wrong_answer() -> None:
    hard = hard_clips(answered(CLIPS))
    assert list(hard.index) == ["3-A", "1-A"], "half right is not hard"
    assert hard[["source", "class", "fits", "right", "wrong_answer"]].astype(object).to_numpy().tolist() == [
        ["3", "rain", 4, 0.0, "sea"],
        ["1", "dog", 4, 0.25, "sea"],
    ]


def test_a_hard_clip_has_the_share_of_each_architecture_and_none_where_it_was_not_asked() -> None:
    both = pd.concat(
        [
            answered({"1-A": ("dog", ["sea", "dog"]), "2-A": ("rain", ["dog", "dog"])}, "Net B"),
            answered({"1-A": ("dog", ["sea", "sea"])}, "Net A"),
        ]
    )
    hard = hard_clips(both)
    assert list(hard.columns[-2:]) == ["Net B", "Net A"], "in the order in which they are given"
    assert hard.loc["1-A", ["Net B", "Net A"]].tolist() == [0.5, 0.0]
    assert hard.loc["2-A", "Net B"] == 0
    assert np.isnan(hard.loc["2-A", "Net A"])


def test_among_equally_hard_clips_the_most_confident_wrong_answers_come_first() -> None:
    answers = answered({"1-A": ("dog", ["sea"]), "2-A": ("dog", ["sea"]), "3-A": ("dog", ["sea"])})
    answers["confidence"] = [0.5, 0.9, 0.7]
    assert hard_clips(answers)["confidence"].to_dict() == {"2-A": 0.9, "3-A": 0.7, "1-A": 0.5}


def test_right_answers_do_not_make_a_wrong_one_more_confident() -> None:
    answers = answered({"1-A": ("dog", ["sea", "sea", "dog"])})
    answers["confidence"] = [0.4, 0.6, 1.0]
    assert hard_clips(answers).loc["1-A", "confidence"] == pytest.approx(0.5)


def test_among_wrong_answers_as_common_the_first_in_label_order_is_named() -> None:
    assert hard_clips(answered({"1-A": ("dog", ["sea", "rain"])})).loc["1-A", "wrong_answer"] == "rain"


def test_without_any_error_no_clip_is_hard_and_the_columns_are_there() -> None:
    some, none = hard_clips(answered(CLIPS)), hard_clips(answered({"1-A": ("dog", ["dog"])}))
    assert none.empty
    assert list(none.columns) == list(some.columns)


# ----------------------------------------------------------------------------------------------------------- recordings


def recordings(*, clips: int, wrong: int, others: int = 2, others_wrong: int = 0) -> pd.DataFrame:
    """Accuracy by source: one recording of some clips, and other recordings of a clip each, all of one class."""
    of_one = {f"big-{number}": ("dog", ["rain" if number < wrong else "dog"]) for number in range(clips)}
    rest = {f"small{number}-A": ("dog", ["rain" if number < others_wrong else "dog"]) for number in range(others)}
    return accuracy_by_source(answered(of_one | rest)).set_index("source")


@pytest.mark.parametrize(
    ("stands_out", "numbers"),
    [
        (True, {"clips": 6, "wrong": 6}),
        (True, {"clips": 6, "wrong": 0, "others": 4, "others_wrong": 2}),
        (True, {"clips": 6, "wrong": 3}),
        (True, {"clips": 3, "wrong": 1, "others": 6, "others_wrong": 5}),
        (False, {"clips": 7, "wrong": 3}),
        (False, {"clips": 2, "wrong": 2}),
        (False, {"clips": 6, "wrong": 6, "others": 0}),
        (False, {"clips": 6, "wrong": 6, "others": 3, "others_wrong": 3}),
    ],
)
def test_a_recording_of_three_clips_stands_out_by_fifty_points_from_the_others_of_its_class(
    stands_out: bool, numbers: dict[str, int]
) -> None:
    table = recordings(**numbers)
    assert table.loc["big", "stands_out"] == stands_out
    assert not table.drop("big")["stands_out"].any()


def test_a_recording_is_compared_with_the_clips_of_its_own_class_alone() -> None:
    answers = answered(
        {
            **{f"1-{letter}": ("dog", ["sea", "dog"]) for letter in "ABC"},
            "2-A": ("dog", ["dog", "dog"]),
            "3-A": ("dog", ["dog", "sea"]),
            "4-A": ("rain", ["sea", "sea"]),
        }
    )
    table = accuracy_by_source(answers)
    assert list(table.columns) == ["class", "source", "n_clips", "right", "others", "stands_out"]
    expected = [["dog", "1", 3, 0.5, 0.75], ["dog", "2", 1, 1.0, 0.5], ["dog", "3", 1, 0.5, 0.625]]
    assert table.iloc[:3, :5].astype(object).to_numpy().tolist() == expected
    assert table.iloc[3, :4].tolist() == ["rain", "4", 1, 0.0]
    assert np.isnan(table.loc[3, "others"]), "the only recording of its class"


def test_every_clip_counts_the_same_however_many_fits_were_asked() -> None:
    table = accuracy_by_source(answered({"1-A": ("dog", ["dog"] * 9), "1-B": ("dog", ["sea"])}))
    assert table["right"].tolist() == [0.5]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=20))
def test_recordings_weighted_by_their_clips_and_classes_by_theirs_give_the_accuracy(
    pairs: list[tuple[str, str]],
) -> None:
    answers = answered({f"{number % 5}-{number}": (true, [said]) for number, (true, said) in enumerate(pairs)})
    sources, recall = accuracy_by_source(answers), recall_by_class(answers)["CNN"]
    accuracy = np.mean([true == said for true, said in pairs])
    assert np.average(sources["right"], weights=sources["n_clips"]) == pytest.approx(accuracy)
    weights = answers["y_true"].value_counts()[recall.index]
    assert np.average(recall, weights=weights) == pytest.approx(accuracy)


# -------------------------------------------------------------------------------------------------------------- classes


def test_recall_is_the_share_of_a_class_that_all_fits_of_an_architecture_have_right() -> None:
    one = answered(
        {"1-A": ("dog", ["dog", "sea"]), "2-A": ("dog", ["dog", "dog"]), "3-A": ("sea", ["sea", "sea"])}, "Net"
    )
    other = answered({"1-A": ("dog", ["sea"]), "2-A": ("dog", ["dog"])}, "CNN")
    table = recall_by_class(pd.concat([one, other]))
    assert list(table.columns) == ["Net", "CNN"]
    assert table.loc["dog"].tolist() == [0.75, 0.5]
    assert table.loc["sea", "Net"] == 1, "a class without an error"
    assert np.isnan(table.loc["sea", "CNN"]), "only one architecture was given the class"


def test_classes_keep_the_order_of_their_labels(tmp_path: Path) -> None:
    assert tuple(recall_by_class(answers_of_fits(kfold(tmp_path))).index) == DEMO.class_names


# -------------------------------------------------------------------------------------------------------------- silence


def test_the_answers_to_silent_windows_are_counted_and_left_out_of_the_second_accuracy() -> None:
    run = hand_made(
        [
            ("1-A", "dog", "dog", False),
            ("1-A", "dog", "sea", True),
            ("2-A", "sea", "sea", False),
            ("2-A", "sea", "sea", True),
        ]
    )
    (row,) = answers_to_silence([run]).reset_index().to_dict("records")
    assert row == {
        "fit_id": run.config.fit_id,
        "architecture": "CNN",
        "n_silent": 2,
        "n_right": 1,
        "accuracy": 0.75,
        "accuracy_without_silence": 1.0,
        "dog": 0,
        "rain": 0,
        "sea": 2,
    }


def test_a_test_fold_may_be_silent_throughout_or_not_at_all() -> None:
    heard = hand_made([("1-A", "dog", "dog", False)])
    silent = hand_made([("1-A", "dog", "rain", True)], seed=1)
    table = answers_to_silence([heard, silent])
    assert table["n_silent"].tolist() == [0, 1]
    assert table[list(CLASSES)].to_numpy().tolist() == [[0, 0, 0], [0, 1, 0]]
    assert table["accuracy_without_silence"].to_numpy() == pytest.approx([1.0, np.nan], nan_ok=True)


def test_the_two_window_accuracies_are_those_that_a_fit_was_saved_with(tmp_path: Path) -> None:
    runs = kfold(tmp_path, silent_windows=2)
    table = answers_to_silence(runs)
    for run in runs:
        saved = run.metrics["scores"]["test"]["window"]
        for name in ("accuracy", "accuracy_without_silence"):
            assert table.loc[run.config.fit_id, name] == pytest.approx(saved[name])
    assert (table[list(DEMO.class_names)].sum(axis=1) == table["n_silent"]).all()
    assert (table["n_silent"] == 2).all()
    assert (table["n_right"] == table[DEMO.class_names[-1]]).all(), "only clips of the last class have silence"
