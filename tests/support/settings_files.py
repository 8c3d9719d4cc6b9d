"""Files of settings that users write: plans and lists of trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audioclf_lib._support.errors import InputError


def refusal(load: Callable[[Path], object], folder: Path, text: str) -> str:
    """The one sentence, naming the file, by which ``load`` refuses a file with this text."""
    path = folder / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load(path)
    sentence = str(error.value)
    assert "mine.yaml" in sentence
    assert "\n" not in sentence
    return sentence
