"""The fast path computes the same function as the reference modules: outputs, losses, every gradient, statistics."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from tiny import make_dataset, make_fit
from torch import Tensor, nn

from audioclf_lib import training
from audioclf_lib.models import create_model
from audioclf_lib.training.accelerate import accelerate, compiled, functions, network
from audioclf_lib.training.accelerate.functions import Dropout, drop
from audioclf_lib.training.accelerate.network import FastNetwork
from audioclf_lib.training.fit import fit

pytestmark = pytest.mark.skipif(compiled.load_kernels() is None, reason="no C compiler here: the fast path is off")

ARCHITECTURES = [("cnn", None), ("transformer", 1), ("transformer", 2), ("transformer", 4)]
CPU = torch.device("cpu")


class GivenMask(nn.Module):
    """Dropout whose mask is given: what the reference uses instead of drawing its own."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors.to(x) if self.training else x


def hashed_bits(key: int, count: int) -> np.ndarray:
    """The kernels' random numbers, written down a second time."""
    with np.errstate(over="ignore"):
        h = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(key & 0xFFFFFFFF)
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> np.uint32(13))) + np.uint32(key >> 32 & 0xFFFFFFFF)
        h = h * np.uint32(0xC2B2AE35)
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
        return h ^ (h >> np.uint32(15))


def factors(rate: float, key: int, *shape: int) -> Tensor:
    """0 for a dropped element, 1 / (1 - rate) for the others."""
    kept = hashed_bits(key, int(np.prod(shape))) >= round(rate * 2**32)
    return torch.from_numpy(kept.reshape(shape) / (1 - rate))


def make_pair(name: str, num_heads: int | None, activation: str, rate: float) -> tuple[nn.Module, nn.Module]:
    """The same model twice: one for the fast path, one that stays the reference. The attention drops nothing."""
    torch.manual_seed(0)
    model = create_model(name, num_heads=num_heads, activation=activation, dropout=rate)
    for module in model.modules():
        if hasattr(module, "head_width"):
            module.dropout = 0.0
        if isinstance(module, nn.BatchNorm1d):  # not the statistics and weights that a fresh one has
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model, copy.deepcopy(model)


def give_masks(reference: nn.Module, keys: list[int], batch: int) -> None:
    """Replace the reference's dropout layers by the masks that the fast path drew, in the order of its drawing."""
    order = iter(keys)
    base = reference.base
    for layer, length, channels in ((1, 8000, 128), (2, 2000, 64), (3, 500, 32)):
        mask = factors(getattr(base, f"dropout{layer}").p, next(order), batch, length, channels)
        setattr(base, f"dropout{layer}", GivenMask(mask.transpose(1, 2)))
    for index, encoder_layer in enumerate(getattr(reference, "encoder", [])):
        tokens = 33 if index == 0 else 1  # of the last layer only CLS is computed
        for name, width in (("dropout1", 250), ("dropout", 2048), ("dropout2", 250)):
            mask = factors(0.1, next(order), batch, tokens, width)
            setattr(encoder_layer, name, GivenMask(F.pad(mask, (0, 0, 0, 33 - tokens), value=1.0)))
    assert next(order, None) is None


@pytest.fixture
def drawn_keys(monkeypatch):
    """The keys of all dropout layers, in the order in which a forward pass draws them."""
    keys: list[int] = []
    draw = functions.draw_dropout

    def recording(rate: float) -> Dropout:
        dropout = draw(rate)
        if rate > 0:
            keys.append(dropout.arguments.key_high << 32 | dropout.arguments.key_low)
        return dropout

    monkeypatch.setattr(network, "draw_dropout", recording)
    return keys


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))


def assert_same_gradients(model: nn.Module, reference: nn.Module, tolerance: float) -> None:
    largest = max(float(parameter.grad.norm()) for parameter in reference.parameters())
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        # Biases in front of a batch norm with batch statistics, and key biases, have no gradient but rounding.
        if float(theirs.grad.norm()) < 1e-5 * largest:
            assert float(ours.grad.norm()) < 1e-3 * largest, name
        else:
            assert relative_error(ours.grad, theirs.grad) < tolerance, name


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("rate", [0.5, 0.2])
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize(("name", "num_heads"), ARCHITECTURES)
def test_outputs_gradients_and_statistics_equal_the_reference_in_float64(
    name, num_heads, activation, rate, training, drawn_keys
):
    model, reference = make_pair(name, num_heads, activation, rate)
    fast, reference = accelerate(model, CPU).train(training), reference.double().train(training)
    x, labels = torch.randn(2, 1, 16000), torch.tensor([3, 7])
    logits = fast(x)
    if training:
        give_masks(reference, drawn_keys, batch=2)
    expected = reference(x.double())
    loss, expected_loss = F.cross_entropy(logits, labels), F.cross_entropy(expected, labels)
    loss.backward()
    expected_loss.backward()

    assert isinstance(fast, FastNetwork)
    assert relative_error(logits, expected) < 1e-5
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    # A ReLU or a maximum that rounding decides otherwise moves a gradient by one element's share.
    assert_same_gradients(model, reference, tolerance=1e-2)
    for (buffer_name, ours), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-5, atol=1e-6, msg=buffer_name)


@pytest.mark.parametrize("batch", [1, 2, 31, 64])
def test_every_batch_size_equals_the_reference(batch, drawn_keys):
    model, reference = make_pair("cnn", None, "relu", 0.5)
    fast = accelerate(model, CPU)
    x, labels = torch.randn(batch, 1, 16000), torch.randint(0, 10, (batch,))
    logits = fast(x)
    give_masks(reference, drawn_keys, batch)
    expected = reference(x)
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(expected, labels).backward()
    assert relative_error(logits, expected) < 1e-4
    assert_same_gradients(model, reference, tolerance=1e-2)


def test_both_stay_together_over_optimizer_steps(drawn_keys):
    model, reference = make_pair("transformer", 4, "relu", 0.2)
    fast = accelerate(model, CPU)
    ours, theirs = (torch.optim.SGD(module.parameters(), lr=0.05) for module in (model, reference))
    for _ in range(3):
        x, labels = torch.randn(3, 1, 16000), torch.randint(0, 10, (3,))
        drawn_keys.clear()
        logits = fast(x)
        give_masks_again = copy.deepcopy(reference)
        give_masks(give_masks_again, drawn_keys, batch=3)
        expected = give_masks_again(x)
        ours.zero_grad()
        F.cross_entropy(logits, labels).backward()
        F.cross_entropy(expected, labels).backward()
        for parameter, twin in zip(reference.parameters(), give_masks_again.parameters(), strict=True):
            parameter.grad = twin.grad
        for buffer, twin in zip(reference.buffers(), give_masks_again.buffers(), strict=True):
            buffer.copy_(twin)
        ours.step()
        theirs.step()
    for (name, parameter), twin in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, twin, rtol=1e-3, atol=1e-5, msg=name)
    for (name, buffer), twin in zip(model.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(buffer, twin, rtol=1e-4, atol=1e-5, msg=name)


def test_attention_drops_weights_as_the_formula_says(drawn_keys):
    attention = create_model("transformer", num_heads=4).encoder[0].attention
    x = torch.randn(2, 33, 250)
    output = network.run_attention(attention.train(), x, x)
    weights = attention.attention_weights(x) * factors(0.1, drawn_keys[0], 2, 4, 33, 33).float()
    heads = weights @ attention.project(x)[2]
    torch.testing.assert_close(output, attention.out_projection(attention.merge_heads(heads)))


def test_a_plain_mean_over_batches_is_gathered_where_momentum_is_none():
    model, reference = make_pair("cnn", None, "relu", 0.5)
    fast = accelerate(model, CPU)
    for module in (model, reference):
        module.eval()
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm1d)):
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn(2, 1, 16000)
            fast(x)
            reference(x)
    for (name, ours), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_the_number_of_threads_changes_rounding_only():
    x, logits, before = torch.randn(5, 1, 16000), [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        model, _ = make_pair("cnn", None, "none", 0.5)
        torch.manual_seed(1)
        logits.append(accelerate(model, CPU)(x))
    torch.set_num_threads(before)
    torch.testing.assert_close(*logits)


def test_the_same_seed_gives_the_same_bits():
    x, results = torch.randn(4, 1, 16000), []
    for _ in range(2):
        model, _ = make_pair("transformer", 2, "relu", 0.5)
        torch.manual_seed(7)
        F.cross_entropy(accelerate(model, CPU)(x), torch.tensor([0, 1, 2, 3])).backward()
        results.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_weights_are_the_models_own():
    model, reference = make_pair("cnn", None, "none", 0.5)
    fast = accelerate(model, CPU)
    assert [id(p) for p in fast.parameters()] == [id(p) for p in model.parameters()]
    reference.load_state_dict(fast.model.state_dict())
    x = torch.randn(3, 1, 16000)
    torch.testing.assert_close(fast.eval()(x), reference.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_dropout_keeps_its_rate_and_its_mean(rate):
    n = 4_000_000
    y = drop(torch.ones(n), Dropout(rate, key=0x0123456789ABCDEF))
    kept = int((y != 0).sum())
    # A binomial test that a fair generator fails once in 10,000 runs; the key is fixed, so it fails always or never.
    assert stats.binomtest(kept, n, 1 - rate).pvalue > 1e-4
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - rate)))


@pytest.mark.parametrize("lag", [1, 2, 16, 32, 64, 128, 250, 256, 2048])
def test_dropped_elements_are_independent_of_their_neighbours(lag):
    mask = (drop(torch.ones(4_000_000), Dropout(0.5, key=99)) != 0).double()
    correlation = float(((mask[:-lag] - 0.5) * (mask[lag:] - 0.5)).mean() * 4)
    assert abs(correlation) < 4 / 2000  # four standard errors


def test_masks_of_different_keys_are_independent():
    masks = [(drop(torch.ones(1_000_000), Dropout(0.5, key)) != 0).double() - 0.5 for key in (0, 1, 2, 1 << 32, 12345)]
    for index, first in enumerate(masks):
        for second in masks[index + 1 :]:
            assert abs(float((first * second).mean() * 4)) < 4 / 1000


def test_runs_of_sixteen_elements_take_every_pattern_equally_often():
    mask = (drop(torch.ones(16 * 2**20), Dropout(0.5, key=2024)) != 0).numpy().reshape(-1, 16)
    patterns = np.bincount(mask[:, :12] @ (1 << np.arange(12)), minlength=4096)
    assert stats.chisquare(patterns).pvalue > 1e-4


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false"], ids=["no compiler", "failed compilation"])
def test_without_a_compiler_a_warning_and_the_reference_modules(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(compiled, "CACHE", tmp_path)
    monkeypatch.setattr(compiled.compile_kernels, "__defaults__", (tmp_path,))
    compiled.load_kernels.cache_clear()
    try:
        model = create_model("cnn")
        with pytest.warns(UserWarning, match="the fast path is off"):
            assert accelerate(model, CPU) is model
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert accelerate(model, CPU) is model  # told once
        assert list(tmp_path.iterdir()) == []
    finally:
        compiled.load_kernels.cache_clear()


def test_a_fit_that_began_on_the_reference_modules_ends_on_them(monkeypatch, tmp_path):
    data = make_dataset()
    config = make_fit(data, epochs=3)

    def stop(_config, history):
        if len(history) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as without_compiler:
        without_compiler.setattr(training, "accelerate", lambda model, device: model)
        whole = fit(config, data, runs_dir=tmp_path / "whole", device="cpu")
        with pytest.raises(KeyboardInterrupt):
            fit(config, data, runs_dir=tmp_path / "resumed", device="cpu", progress=stop)
    resumed = fit(config, data, runs_dir=tmp_path / "resumed", device="cpu")
    assert whole.environment["path"] == resumed.environment["path"] == training.REFERENCE
    assert whole.history.drop(columns="seconds").equals(resumed.history.drop(columns="seconds"))
    compiled_run = fit(config, data, runs_dir=tmp_path / "compiled", device="cpu")
    assert compiled_run.environment["path"] == training.COMPILED


def test_a_second_process_finds_the_compiled_kernels(tmp_path):
    first = compiled.compile_kernels(compiled.find_compiler(), tmp_path)
    written = first.stat().st_mtime_ns
    assert compiled.compile_kernels(compiled.find_compiler(), tmp_path) == first
    assert first.stat().st_mtime_ns == written
