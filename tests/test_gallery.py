"""The gallery: executed notebooks as pages that hold all they show, and are small."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile as sf
from maintainer_tools import load_tool
from small_suite import CLASSES, make_sounds

from audioclf_lib._support.errors import InputError


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("gallery")


def embedded(kind: str, page: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(rf"data:{kind};base64,([\w+/=]+)", page)]


def test_a_page_holds_its_figures_and_sounds_and_nothing_else(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOCLF_FIGURES", str(tmp_path / "figures"))
    make_sounds(tmp_path / "sounds")
    values = {"dataset": str(tmp_path / "sounds"), "epochs": 1, "runs_dir": tmp_path / "runs"}
    (page,) = tool.make_gallery(tmp_path / "gallery", **values, only=["01_dataset"])
    text = page.read_text()
    assert text.count("<figure ") == 3  # the classes, one in windows, silence
    assert len(embedded("audio/ogg", text)) == len(CLASSES)
    assert "application/pdf" not in text
    assert "injected-parameters" not in text
    assert page.stat().st_size < 3e6
    index = (tmp_path / "gallery" / "index.html").read_text()
    assert '<a href="01_dataset.html">01_dataset</a>: The data set' in index


def test_figures_and_sounds_become_smaller_and_stay_what_they_are(tool: ModuleType) -> None:
    wave, sound = np.sin(np.arange(16_000) / 10) / 2, io.BytesIO()
    sf.write(sound, wave, 16_000, format="WAV")
    drawing = '<svg><path transform="scale(0.015625)" d="M 1.234567 2.5 L 100 7"/></svg>'
    page = f'<audio src="data:audio/wav;base64,{base64.b64encode(sound.getvalue()).decode()}" type="audio/wav"/>'
    page += f'<img src="data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}">'
    smaller = tool.smaller(page)
    assert len(smaller) < len(page) / 2
    assert 'type="audio/ogg"' in smaller
    heard, rate = sf.read(io.BytesIO(embedded("audio/ogg", smaller)[0]))
    assert rate == 16_000
    assert np.corrcoef(heard, wave)[0, 1] > 0.95
    assert embedded(r"image/svg\+xml", smaller)[0].decode() == drawing.replace("1.234567", "1.2")


def test_an_unknown_notebook_is_refused_before_anything_is_run(tool: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no notebook '99_nothing'; choose from 01_dataset, "):
        tool.make_gallery(tmp_path / "gallery", dataset="demo", epochs=1, only=["99_nothing"])
    assert not (tmp_path / "gallery").exists()
