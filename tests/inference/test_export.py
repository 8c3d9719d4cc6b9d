"""Exported networks: what they say is what ``run.model()`` says, for any architecture and batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from audioclf_lib._support.errors import InputError
from audioclf_lib.inference import export_onnx
from audioclf_lib.inference.export import _adaptive_max_pool
from audioclf_lib.runs import Run, RunStore
from audioclf_lib.runs.trained import TrainedModel

MODELS = ("cnn", "transformer", "mel-cnn")


@pytest.mark.parametrize("model", MODELS)
def test_an_exported_network_gives_the_logits_of_the_run(model: str, store: RunStore, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    run = store.find(model=model)[0]
    export_onnx(run, tmp_path / "made" / "model.onnx")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["model.onnx"], "one file, weights inside"
    session = onnxruntime.InferenceSession(tmp_path / "made" / "model.onnx")
    torch.manual_seed(0)
    for batch in (1, 3):
        windows = torch.rand(batch, 1, 16_000) - 0.5
        windows[0, 0, 9_000:] = 0
        windows[-1] *= 1e-5  # silence is not scaled up
        (logits,) = session.run(["logits"], {"windows": windows.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), run.model()(windows), atol=1e-4, rtol=0)
    told = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert told == {"classes": ["hum", "hiss", "click"], "sample_rate": 16_000, "hop": 8_000, "fit": run.config.fit_id}


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 5), (4, 4)])
def test_adaptive_max_pooling_is_torchs(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_adaptive_max_pool(x, list(size))[0], nn.functional.adaptive_max_pool2d(x, size))


def test_without_the_extra_the_command_that_installs_it_is_said(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"onnxscript is not installed; `pip install 'audioclf\[onnx\]'` brings it"):
        export_onnx(store.find()[0], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_onnx_cannot_hold_is_refused_in_a_sentence(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")

    class Sorting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x[:, 0, 0].argsort().tolist()[:1]]  # depends on the values

    run = store.find()[0]
    monkeypatch.setattr(Run, "model", lambda self: TrainedModel(Sorting(), self.config.recipe_settings))
    with pytest.raises(InputError, match=rf"model {run.config.model} cannot be written as ONNX \(.*; use run\.model"):
        export_onnx(run, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
