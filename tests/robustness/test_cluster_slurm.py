"""The suite on a Slurm cluster: real Slurm on hosts of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import (
    SLURM_PROGRAMS,
    Cluster,
    Work,
    assert_same_results,
    lose_a_host_and_finish,
    notebooks_running,
    queue,
    slurm_cluster,
    start_standins,
    start_waiting,
    wait_for_end,
)
from hosts import missing
from standins import Scene, wait_until

from audioclf_lib.cli import INTERRUPTED

REASON = missing(*SLURM_PROGRAMS)
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(REASON is not None, reason=f"no Slurm here: {REASON}")]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with slurm_cluster() as cluster:
        yield cluster


def test_the_suite_runs_on_all_nodes_with_the_results_of_a_laptop_and_once(cluster: Cluster, tmp_path: Path) -> None:
    work = Work(tmp_path)
    outcomes = work.run(cluster)
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert work.hosts(outcomes) == {"node1", "node2"}
    assert queue(cluster) == ""
    assert_same_results(work.finished(), work.on_this_machine())

    before = work.snapshot()
    work.run(cluster)
    assert work.said == []
    assert work.snapshot() == before


@pytest.mark.faults
def test_a_lost_node_s_work_goes_on_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    lose_a_host_and_finish(cluster, tmp_path)
    assert queue(cluster) == ""


@pytest.mark.faults
def test_a_stopped_or_killed_suite_leaves_no_job_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    suite = start_waiting(cluster, scene)
    assert sorted(line.split()[1] for line in queue(cluster).splitlines()) == ["PENDING", "RUNNING", "RUNNING"]
    with_gpu = [process for process in notebooks_running(cluster) if process.environ().get("CUDA_VISIBLE_DEVICES")]
    assert with_gpu, "a notebook that wants a GPU is given one"

    cluster.interrupt(suite)
    assert wait_for_end(suite) == INTERRUPTED
    wait_until(lambda: queue(cluster) == "", "the queue to be empty")
    wait_until(lambda: notebooks_running(cluster) == [], "the notebooks to stop")

    start_waiting(cluster, scene)
    cluster.kill_suites()
    assert len(queue(cluster).splitlines()) == 3, "nobody was left to cancel them"
    scene.wish({})
    assert wait_for_end(start_standins(cluster, scene)) == 0, "the jobs that are left would wait for ever"
    assert queue(cluster) == ""
