"""Killed, interrupted or started twice: the next start goes on where the last one stopped, and nothing is lost.

``nothing_lost.assert_nothing_lost`` says what that means. Moments are drawn with fixed seeds from the file operations
of a suite; a suite is killed again and again until it is finished, and then the next one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from nothing_lost import (
    Sabotage,
    Start,
    Workplace,
    assert_nothing_lost,
    draw_moments,
    strike_in_a_row,
    wait_for_end,
)

pytestmark = pytest.mark.nothing_lost

# From which of the file operations that count a moment is drawn: about a third of what a whole suite makes, so that
# several kills fall on one suite. A whole engine has some twenty to do before the first notebook.
LATEST = {"kernel": 16, "papermill": 40, "snakemake": 60, "everything": 70}
KILLS = 20


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Workplace]:
    """New suites, as many as are asked for; a moment that never comes ends the test."""
    return (Workplace.make(tmp_path / f"suite {number}") for number in range(KILLS))


def kills(target: str, number: int) -> list[Sabotage]:
    seed = list(LATEST).index(target)
    return [Sabotage(target, *moment) for moment in draw_moments(seed, number, LATEST[target])]


def told_of(start: Start, target: str) -> bool:
    """Whether the suite that was struck ended as it should: dead with everything, else with one line for each job."""
    if target == "everything":
        return start.code == -signal.SIGKILL
    # A kernel that is killed when it has nothing left to do is not missed.
    return start.code == 0 or (start.code == 1 and "Not done" in start.out)


@pytest.mark.faults
def test_whoever_is_killed_the_suite_goes_on(places: Iterator[Workplace], undisturbed: Workplace) -> None:
    """A moment of each, all in a row."""
    deeds = list(chain.from_iterable(kills(target, 1) for target in LATEST))
    starts = strike_in_a_row(places, undisturbed, deeds)
    for start, deed in zip(starts, deeds, strict=True):
        assert told_of(start, deed.target), (deed, start)


@pytest.mark.faults
@pytest.mark.parametrize("target", LATEST)
def test_kill_9_at_twenty_moments(target: str, places: Iterator[Workplace], undisturbed: Workplace) -> None:
    for start in strike_in_a_row(places, undisturbed, kills(target, KILLS)):
        assert told_of(start, target), start


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_suite_that_is_asked_to_stop_says_how_to_go_on(
    number: signal.Signals, places: Iterator[Workplace], undisturbed: Workplace
) -> None:
    deeds = [Sabotage("suite", moment, 0.0, number=number) for moment in (30, 60, 75, 90)]
    for start in strike_in_a_row(places, undisturbed, deeds):
        assert (start.code, start.err) == (130, "stopped; run the same command again to go on\n")


@pytest.mark.faults
def test_two_suites_on_one_folder_take_turns(places: Iterator[Workplace], undisturbed: Workplace) -> None:
    place = next(places)
    both = [place.launch() for _ in range(2)]
    printed = []
    for process, _, token in both:
        printed.append(process.communicate(timeout=600)[0])
        assert process.returncode == 0
        assert wait_for_end(token)
    assert sum("runs a suite in" in out and "waiting for it" in out for out in printed) == 1
    place.note()
    assert_nothing_lost(place, undisturbed)
