"""What a plan makes there to run: each job once, told apart by its title, and after what it waits for."""

from __future__ import annotations

from pathlib import Path

from synthetic import DEMO

from audioclf_lib.config import KnownDataset
from audioclf_lib.suite.jobs import Job, distinct_fits, fit_key, jobs_at_once, plan_jobs, suite_jobs
from audioclf_lib.suite.plan import Plan, Sweep

CNN = {"model": "cnn", "protocol": ["kfold", "split"]}
HEADS = {"model": "transformer", "num_heads": [1, 2, 4], "protocol": ["kfold", "split"]}


def known(name: str, *, with_folds: object) -> KnownDataset:
    """Every folder holds what the demo set holds."""
    return KnownDataset(Path(name).name, DEMO.fingerprint, DEMO.folds, DEMO.class_names)


def jobs_of(**settings: object) -> list[Job]:
    values = {"name": "mine", "epochs": 2, "experiments": [CNN]}
    return suite_jobs(Sweep(values | settings), runs_dir=Path("runs"), read=known)


def titles(jobs: list[Job]) -> list[str]:
    return [job.title for job in jobs]


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_one_plan_has_the_jobs_that_it_always_had() -> None:
    plan = Plan(name="mine", epochs=2, diagnosis_epochs=1, experiments=[CNN])
    assert suite_jobs(plan, runs_dir=Path("runs"), read=known) == plan_jobs(plan, DEMO, runs_dir=Path("runs"))
    assert titles(plan_jobs(plan, DEMO)) == ["dataset", "cnn-kfold", "cnn-split", "diagnosis"]


def test_titles_tell_what_differs_in_the_sweep_and_nothing_else() -> None:
    assert titles(jobs_of(recipe=["tuned", "as-written"], test_fold=[1, 3])) == [
        "dataset",
        "cnn-kfold (tuned)",
        "cnn-split (tuned)",
        "cnn-kfold-test3 (tuned)",
        "cnn-split-test3 (tuned)",
        "cnn-kfold (as-written)",
        "cnn-split (as-written)",
        "cnn-kfold-test3 (as-written)",
        "cnn-split-test3 (as-written)",
    ]
    there = titles(jobs_of(dataset=["demo", "/sounds/mine"], learning_rate=[0.001, 0.01]))
    assert there[0] == "dataset (demo)"
    assert "dataset (mine)" in there
    assert "cnn-split (mine, rate0.01)" in there
    assert len(there) == len(set(there)) == 2 * (1 + 2 * 2)


def test_data_sets_of_the_same_content_have_jobs_of_their_own() -> None:
    jobs = jobs_of(dataset=["demo", "/sounds/mine"])
    assert len({job.key for job in jobs}) == len({job.output for job in jobs}) == len(jobs) == 6


def test_a_diagnosis_is_made_once_for_each_data_set_and_test_fold() -> None:
    jobs = jobs_of(recipe=["tuned", "as-written"], learning_rate=[0.001, 0.01], test_fold=[1, 2], diagnosis_epochs=1)
    assert [title for title in titles(jobs) if "diagnosis" in title] == ["diagnosis (test1)", "diagnosis (test2)"]


def test_a_check_that_is_another_plans_experiment_is_run_once_and_among_the_experiments() -> None:
    check = {"model": "cnn", "protocol": "split", "test_fold": 3}
    jobs = jobs_of(test_fold=[1, 3], checks=[check])
    (job,) = (job for job in jobs if job.title == "cnn-split-test3")
    assert job.priority == next(job.priority for job in jobs if job.title == "cnn-split") > 0
    (alone,) = (job for job in jobs_of(checks=[check]) if job.title == "cnn-split-test3")
    assert alone.priority == 0


def test_a_fit_that_two_plans_share_is_the_same_fit() -> None:
    """The recipe as written has a learning rate of 0.001, so giving it that rate changes nothing."""
    given, left = (
        distinct_fits(jobs_of(recipe="as-written", **settings)) for settings in ({"learning_rate": 0.001}, {})
    )
    assert list(given) == list(left)


# --- folds spread over runs -------------------------------------------------------------------------------------------


def test_a_spread_experiment_comes_after_a_run_for_each_of_its_folds() -> None:
    plain, spread = jobs_of(), jobs_of(spread_folds=True)
    assert titles(spread) == [
        "dataset",
        *(f"cnn-kfold-val{fold}" for fold in (2, 3, 4, 5)),
        "cnn-kfold",
        "cnn-split",
    ]
    by_title = {job.title: job for job in spread}
    parts = [by_title[f"cnn-kfold-val{fold}"] for fold in (2, 3, 4, 5)]
    assert [job.parameters["val_folds"] for job in parts] == [[2], [3], [4], [5]]
    assert by_title["cnn-kfold"].after == tuple(job.key for job in parts)
    assert by_title["cnn-split"].after == (parts[0].key,), "the run of the fold that the split validates on"
    assert distinct_fits(parts) == distinct_fits(spread) == distinct_fits(plain)
    assert [job.key for job in spread if not job.for_others] == [job.key for job in plain], "the experiments stay"
    assert all(not job.after for job in plain)


def test_checks_and_experiments_with_one_fold_are_spread_no_further() -> None:
    check = {"model": "cnn", "protocol": "split", "test_fold": 3}
    assert titles(jobs_of(spread_folds=True, checks=[check]))[-1] == "cnn-split-test3"
    two = Sweep({"name": "mine", "epochs": 1, "spread_folds": True, "experiments": [CNN], "dataset": "three"})

    def three_folds(name: str, *, with_folds: object) -> KnownDataset:
        return KnownDataset(name, DEMO.fingerprint, (1, 2, 3), DEMO.class_names)

    jobs = suite_jobs(two, read=three_folds)
    assert titles(jobs) == ["dataset", "cnn-kfold-val2", "cnn-kfold-val3", "cnn-kfold", "cnn-split"]


def test_every_fit_of_the_eight_experiments_can_have_a_worker_of_its_own() -> None:
    spread = jobs_of(spread_folds=True, experiments=[CNN, HEADS])
    ready = [job for job in spread if not job.after and job.fits]
    assert len(ready) == len({fit_key(fit) for job in ready for fit in job.fits}) == 16
    assert jobs_at_once(spread) == 16
    assert jobs_at_once(jobs_of(experiments=[CNN, HEADS])) == 4


def test_a_sweep_keeps_as_many_workers_busy_as_it_can_but_not_without_end() -> None:
    assert jobs_at_once(jobs_of(learning_rate=[rate / 100 for rate in range(1, 10)])) == 9
    assert jobs_at_once(jobs_of(learning_rate=[rate / 100 for rate in range(1, 100)])) == 16
