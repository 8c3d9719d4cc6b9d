"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")  # before anybody imports matplotlib

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_esc10() -> Path:
    """Folder of the real ESC-10 recordings: below AUDIOCLF_DATA, beside the project, or in data/."""
    places = [os.environ.get("AUDIOCLF_DATA"), PROJECT_ROOT.parent / "shared", PROJECT_ROOT / "data"]
    for place in places:
        if place and (Path(place) / "ESC-10").is_dir():
            return (Path(place) / "ESC-10").resolve()
    pytest.skip("no copy of ESC-10: set AUDIOCLF_DATA to the folder that holds it")
