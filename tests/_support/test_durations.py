"""Times as people say them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioclf_lib._support.durations import describe_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.7, "1 min 00 s"),
        (61.2, "1 min 01 s"),
        (3599.6, "1 h 00 min"),
        (3600, "1 h 00 min"),
        (7799, "2 h 09 min"),
    ],
)
def test_a_time(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text


@given(st.floats(0, 1e6))
def test_no_unit_is_full(seconds: float) -> None:
    assert "60 s" not in describe_seconds(seconds) and "60 min" not in describe_seconds(seconds)
