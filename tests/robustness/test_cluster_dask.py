"""The suite on loose machines: a Dask scheduler and workers on hosts of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import (
    Cluster,
    Work,
    assert_same_results,
    dask_cluster,
    lose_a_host_and_finish,
    notebooks_running,
    start_waiting,
    wait_for_end,
)
from hosts import missing
from standins import Scene, wait_until

from audioclf_lib.cli import INTERRUPTED

REASON = missing()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(REASON is not None, reason=f"no hosts for Dask here: {REASON}")]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with dask_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """For tests that leave it as it is."""
    with dask_cluster() as cluster:
        yield cluster


def test_the_suite_runs_on_all_hosts_with_the_results_of_a_laptop_and_once(shared: Cluster, tmp_path: Path) -> None:
    work = Work(tmp_path)
    outcomes = work.run(shared)
    assert {outcome.state for outcome in outcomes} == {"done"}
    assert work.hosts(outcomes) == {"node1", "node2"}
    assert_same_results(work.finished(), work.on_this_machine())

    before = work.snapshot()
    work.run(shared)
    assert work.said == []
    assert work.snapshot() == before


def test_nothing_listens_but_on_the_address_that_was_given(shared: Cluster) -> None:
    for host in (shared.login, *shared.workers.values()):
        addresses = {line.split()[3].rsplit(":", 1)[0] for line in host.run("ss", "-ltnH").splitlines()}
        assert addresses == {host.address, "127.0.0.1"}


@pytest.mark.faults
def test_a_lost_host_s_work_goes_on_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    lose_a_host_and_finish(cluster, tmp_path)


@pytest.mark.faults
def test_a_stopped_suite_stops_its_notebooks(cluster: Cluster, tmp_path: Path) -> None:
    suite = start_waiting(cluster, Scene(tmp_path))
    assert notebooks_running(cluster) != []
    cluster.interrupt(suite)
    assert wait_for_end(suite) == INTERRUPTED
    wait_until(lambda: notebooks_running(cluster) == [], "the notebooks to stop")
