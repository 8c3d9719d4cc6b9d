"""The fast path computes the same function as the reference modules: outputs, losses, every gradient, statistics."""

from __future__ import annotations

import copy
import os
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from tiny import make_dataset, make_fit
from torch import Tensor, nn

from audioclf_lib.models import create_model
from audioclf_lib.models.cnn import CNN, ConvBase
from audioclf_lib.training.accelerate import accelerate, compiled, functions, network
from audioclf_lib.training.accelerate.functions import (
    NO_DROPOUT,
    Dropout,
    NormPool,
    channel_statistics,
    drop,
    patch_statistics,
)
from audioclf_lib.training.accelerate.network import FastNetwork
from audioclf_lib.training.environment import COMPILED, REFERENCE
from audioclf_lib.training.trainer import fit

pytestmark = pytest.mark.skipif(compiled.load_kernels() is None, reason="no C compiler here: the fast path is off")

CPU = torch.device("cpu")

# Model, its settings, activation, rate of dropout, whether in training. The base is that of the CNN in all of them.
NETWORKS = [
    *(
        ("cnn", {}, activation, *mode)
        for activation in ("none", "relu")
        for mode in [(0.5, True), (0.2, True), (0.5, False)]
    ),
    *(("transformer", {"num_heads": heads}, "relu", 0.5, True) for heads in (1, 2, 4)),
    *(("transformer", {"num_heads": 4}, "none", *mode) for mode in [(0.2, True), (0.5, False)]),
]


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


def make_pair(name: str, activation: str, rate: float, **of_model: int) -> tuple[nn.Module, nn.Module]:
    """The same model twice: one for the fast path, one that stays the reference. The attention drops nothing."""
    torch.manual_seed(0)
    model = create_model(name, activation=activation, dropout=rate, **of_model)
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

    monkeypatch.setattr(functions, "draw_dropout", recording)
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


@pytest.mark.parametrize(("name", "of_model", "activation", "rate", "training"), NETWORKS)
def test_outputs_gradients_and_statistics_equal_the_reference_in_float64(
    name, of_model, activation, rate, training, drawn_keys
):
    model, reference = make_pair(name, activation, rate, **of_model)
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


@pytest.mark.parametrize("batch", [1, 33])
def test_every_batch_size_equals_the_reference(batch, drawn_keys):
    model, reference = make_pair("cnn", "relu", 0.5)
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
    model, reference = make_pair("transformer", "relu", 0.2, num_heads=4)
    fast = accelerate(model, CPU)
    ours, theirs = (torch.optim.SGD(module.parameters(), lr=0.05) for module in (model, reference))
    for _ in range(2):
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
    model, reference = make_pair("cnn", "relu", 0.5)
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


@pytest.mark.parametrize(("name", "of_model"), [("cnn", {}), ("transformer", {"num_heads": 4})])
def test_the_number_of_threads_changes_rounding_only(name, of_model):
    x, labels, results, before = torch.randn(5, 1, 16000), torch.arange(5), [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model, _ = make_pair(name, "none", 0.5, **of_model)
            torch.manual_seed(1)
            logits = accelerate(model, CPU)(x)
            F.cross_entropy(logits, labels).backward()
            results.append([logits, *model.buffers(), *(parameter.grad for parameter in model.parameters())])
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_bits():
    x, results = torch.randn(4, 1, 16000), []
    for _ in range(2):
        model, _ = make_pair("transformer", "relu", 0.5, num_heads=2)
        torch.manual_seed(7)
        F.cross_entropy(accelerate(model, CPU)(x), torch.tensor([0, 1, 2, 3])).backward()
        results.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_weights_are_the_models_own():
    model, reference = make_pair("cnn", "none", 0.5)
    fast = accelerate(model, CPU)
    assert [id(p) for p in fast.parameters()] == [id(p) for p in model.parameters()]
    reference.load_state_dict(fast.model.state_dict())
    x = torch.randn(3, 1, 16000)
    torch.testing.assert_close(fast.eval()(x), reference.eval()(x), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------ what is left to the modules


class Doubled(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Own(CNN):
    """An architecture of one's own around the same base."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.base(x).square().flatten(1))


def replaced(name: str, make: Callable[[], nn.Module]) -> Callable[[nn.Module], None]:
    return lambda model: setattr(model.base, name, make())


def attribute(path: str, value: Any) -> Callable[[nn.Module], None]:
    layer, _, name = path.rpartition(".")
    return lambda model: setattr(model.get_submodule(layer), name, value)


def parts_wider(model: nn.Module) -> None:
    """Another number of filters, right in itself."""
    model.base.conv1, model.base.batch_norm1 = nn.Conv1d(1, 64, 7, 2, 3), nn.BatchNorm1d(64)
    model.base.conv2 = nn.Conv1d(64, 64, 5, 2, 2)


def hooked(model: nn.Module) -> None:
    model.base.pool1.register_forward_hook(lambda _module, _inputs, output: output + 1)


# Changes after which the kernels would compute something else than the modules.
CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "GELU": replaced("activation1", nn.GELU),
    "leaky ReLU": replaced("activation2", nn.LeakyReLU),
    "tanh": replaced("activation3", nn.Tanh),
    "max instead of mean pool": replaced("pool3", lambda: nn.MaxPool1d(2)),
    "mean instead of max pool": replaced("pool1", lambda: nn.AvgPool1d(2)),
    "pool of 4, stride 2": replaced("pool2", lambda: nn.MaxPool1d(4, 2, 1)),
    "pool with ceil_mode": replaced("pool3", lambda: nn.AvgPool1d(2, ceil_mode=True)),
    "channel dropout": replaced("dropout1", lambda: nn.Dropout1d(0.5)),
    "alpha dropout": replaced("dropout2", lambda: nn.AlphaDropout(0.5)),
    "dropout of everything": replaced("dropout2", lambda: nn.Dropout(1.0)),
    "kernel of 9": replaced("conv1", lambda: nn.Conv1d(1, 128, 9, 2, 4)),
    "dilation": replaced("conv2", lambda: nn.Conv1d(128, 64, 5, 2, 4, dilation=2)),
    "groups": replaced("conv2", lambda: nn.Conv1d(128, 64, 5, 2, 2, groups=2)),
    "no bias": replaced("conv1", lambda: nn.Conv1d(1, 128, 7, 2, 3, bias=False)),
    "circular padding": replaced("conv3", lambda: nn.Conv1d(64, 32, 3, 2, 1, padding_mode="circular")),
    "a subclass": replaced("conv2", lambda: Doubled(128, 64, 5, 2, 2)),
    "batch norm without scale": replaced("batch_norm2", lambda: nn.BatchNorm1d(64, affine=False)),
    "batch norm without memory": replaced("batch_norm1", lambda: nn.BatchNorm1d(128, track_running_stats=False)),
    "instance norm": replaced("batch_norm3", lambda: nn.InstanceNorm1d(32, affine=True, track_running_stats=True)),
    "64 filters": parts_wider,
    "a hook": hooked,
    "weight norm": lambda model: nn.utils.parametrizations.weight_norm(model.base.conv1),
    "another forward": lambda model: setattr(model.base.pool1, "forward", lambda x: 3 * x[..., ::2]),
    "a stride set later": attribute("base.conv3.padding", (2,)),
    "float64": lambda model: model.double(),
}
# Changes that the kernels follow.
FOLLOWED: dict[str, Callable[[nn.Module], None]] = {
    "nothing": lambda model: None,
    "a ReLU in one block": replaced("activation2", nn.ReLU),
    "another eps": attribute("base.batch_norm1.eps", 0.1),
    "another momentum": attribute("base.batch_norm3.momentum", 0.5),
    "a norm that is held": lambda model: model.base.batch_norm2.eval(),
    "frozen filters": lambda model: model.base.conv1.requires_grad_(False),
    "a norm that forgets": lambda model: nn.init.zeros_(model.base.batch_norm2.weight),
}


@pytest.mark.parametrize("name", ["cnn", "transformer"])
@given(change=st.sampled_from([*CHANGES, *FOLLOWED]), seed=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_whatever_is_changed_in_a_layer_the_result_is_that_of_the_modules(name, change, seed):
    # A constant signal: the encoder's layer norms divide rounding errors by almost nothing.
    assume((name, change) != ("transformer", "a norm that forgets"))
    torch.manual_seed(seed)
    model = create_model(name, dropout=0.0)
    (CHANGES | FOLLOWED)[change](model)
    for module in model.modules():
        if "dropout" in vars(module):
            module.dropout = 0.0
        if type(module) is nn.Dropout and module.p < 1:
            module.p = 0.0
    reference = copy.deepcopy(model)
    x = torch.randn(2, 1, 16000, dtype=next(model.parameters()).dtype)
    state = torch.get_rng_state()
    fast = accelerate(model, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    outputs = []
    for each in (fast, reference):
        torch.set_rng_state(state)
        try:
            outputs.append(each(x))
        except RuntimeError:  # lengths that the last layer does not take
            outputs.append(torch.zeros(1))
    # Behind a norm that forgets, block 3 differs at the padded edges alone: its norm magnifies the rounding of both.
    atol = 5e-3 if change == "a norm that forgets" else 1e-4
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_that_the_kernels_do_not_compute_is_left_to_the_modules(change):
    model = create_model("cnn")
    CHANGES[change](model)
    assert accelerate(model, CPU) is model


@pytest.mark.parametrize("change", FOLLOWED)
@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_the_kernels_follow_rates_activations_and_constants(name, change):
    model = create_model(name)
    FOLLOWED[change](model)
    assert isinstance(accelerate(model, CPU), FastNetwork)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.encoder[1], "norm2", nn.Identity()),
        lambda model: setattr(model.encoder[0], "linear1", nn.Linear(250, 2048, bias=False)),
        lambda model: setattr(model.encoder[0].attention, "num_heads", 2),
        lambda model: model.encoder.append(nn.Identity()),
        lambda model: setattr(model.encoder[0], "dropout1", nn.Dropout1d(0.1)),
        lambda model: model.encoder[0].attention.register_forward_pre_hook(lambda _module, inputs: inputs),
    ],
)
def test_a_changed_encoder_is_left_to_the_modules(change):
    model = create_model("transformer", num_heads=4)
    change(model)
    assert accelerate(model, CPU) is model


def test_an_own_architecture_around_the_base_is_left_to_the_modules():
    for model in (Own(), ConvBase(), nn.Sequential(CNN())):
        assert accelerate(model, CPU) is model


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_an_architecture_whose_file_is_edited_is_left_to_the_modules(name, monkeypatch):
    model = create_model(name)
    monkeypatch.setattr(network, "source_digest", lambda source, class_name: "another")
    assert accelerate(model, CPU) is model


@pytest.mark.parametrize("shape", [(0, 1, 16000), (2, 1, 16001)], ids=["no windows", "another length"])
def test_windows_of_another_shape_go_through_the_modules(shape):
    model, reference = make_pair("cnn", "relu", 0.5)
    fast, x = accelerate(model.eval(), CPU), torch.randn(shape)
    assert torch.equal(fast(x), reference.eval()(x))


def test_a_gradient_with_respect_to_the_window_is_there():
    model, reference = make_pair("cnn", "relu", 0.5)
    gradients = []
    for each in (accelerate(model.eval(), CPU), reference.eval()):
        x = torch.ones(1, 1, 16000, requires_grad=True)
        each(x)[0, 0].backward()
        gradients.append(x.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


# ----------------------------------------------------------------------------------------------------- NaN, statistics


@pytest.mark.parametrize(("name", "of_model", "activation", "rate", "training"), NETWORKS)
def test_a_window_with_nan_has_nan_logits_as_with_the_modules(name, of_model, activation, rate, training):
    model, reference = make_pair(name, activation, rate, **of_model)
    x = torch.randn(3, 1, 16000)
    x[1, 0, 8000] = torch.nan
    logits, expected = (each.train(training)(x) for each in (accelerate(model, CPU), reference))
    assert torch.equal(logits.isnan(), expected.isnan())
    assert logits[1].isnan().all() and logits.isnan().all() == training
    assert F.cross_entropy(logits, torch.tensor([0, 1, 2])).isnan()


@pytest.mark.parametrize("parameter", ["conv1.weight", "conv1.bias", "batch_norm1.bias", "conv2.weight", "conv3.bias"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_nan_or_infinite_makes_the_loss_nan_as_with_the_modules(parameter, training, value):
    model, reference = make_pair("cnn", "relu", 0.5)
    for module in (model, reference):
        with torch.no_grad():
            module.base.get_parameter(parameter).view(-1)[3] = value
    x, labels = torch.randn(2, 1, 16000), torch.tensor([0, 1])
    losses = [F.cross_entropy(each.train(training)(x), labels) for each in (accelerate(model, CPU), reference)]
    assert losses[0].isnan() == losses[1].isnan()
    if np.isnan(value):
        assert losses[0].isnan()


@pytest.mark.parametrize("average", [False, True], ids=["max", "mean"])
@pytest.mark.parametrize("relu", [False, True], ids=["none", "relu"])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_every_special_value_passes_activation_dropout_and_pool_as_in_torch(rate, relu, average):
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -1.0, 2.0])
    z = torch.cartesian_prod(values, values).repeat(16, 1).t().reshape(1, 2, -1)  # (1, 2, 576): all pairs
    z = z.reshape(1, 2, -1, 16).permute(0, 2, 1, 3).reshape(1, -1, 16).contiguous().requires_grad_()  # (1, 72, 16)
    one, zero = torch.ones(16), torch.zeros(16)
    dropout = Dropout(rate, key=5) if rate else NO_DROPOUT
    y = NormPool.apply(z, one, zero, (zero.double(), one.double(), False), dropout, relu, average)
    (gradient,) = torch.autograd.grad(y.nan_to_num(0, 0, 0).sum(), z)

    reference = z.detach().clone().requires_grad_()
    mask = factors(rate, 5, 1, z.shape[1], 16).float() if rate else 1.0
    x = ((F.relu(reference) if relu else reference) * mask).transpose(1, 2)
    expected = (F.avg_pool1d(x, 2) if average else F.max_pool1d(x, 2)).transpose(1, 2)
    (expected_gradient,) = torch.autograd.grad(expected.nan_to_num(0, 0, 0).sum(), reference)
    torch.testing.assert_close(y, expected, equal_nan=True)
    finite = z.isfinite()
    torch.testing.assert_close(gradient[finite], expected_gradient[finite])


def test_dropout_of_nan_and_infinity_is_nan_as_in_torch():
    x = torch.tensor([torch.nan, torch.inf, 1.0]).repeat(21)
    expected = x * factors(0.5, 7, len(x)).float()
    torch.testing.assert_close(drop(x, Dropout(0.5, key=7)), expected, equal_nan=True)


@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (30, 0.03), (100, 0.01), (-1e4, 1), (30, 0)])
@pytest.mark.parametrize("threads", [1, 2])
def test_channel_variance_is_right_far_from_zero(mean, deviation, threads):
    z = mean + deviation * torch.randn(3, 700, 64)
    z[:, 0] = 0  # the first position, next to the padding, is unlike the others
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours = channel_statistics(z)
    finally:
        torch.set_num_threads(before)
    rows = z.double().view(-1, 64)
    torch.testing.assert_close(ours[0], rows.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours[1], rows.var(0, correction=0), rtol=1e-4, atol=1e-12)
    inner = channel_statistics(z[:, 1:].contiguous())[1]
    torch.testing.assert_close(inner, z[:, 1:].double().var((0, 1), correction=0), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (30, 0.03), (100, 0.01)])
@pytest.mark.parametrize("threads", [1, 2])
def test_patch_covariance_is_right_with_an_offset(mean, deviation, threads):
    x = mean + deviation * torch.randn(3, 16000)
    x[2] += 5  # every window has an offset of its own
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        patch_mean, covariance = patch_statistics(x)
    finally:
        torch.set_num_threads(before)
    patches = F.pad(x.double(), (3, 3)).unfold(1, 7, 2).reshape(-1, 7)
    torch.testing.assert_close(patch_mean, patches.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(covariance, patches.T.cov(correction=0), rtol=1e-5, atol=1e-5)
    # A filter that the offset does not pass: what is left is the deviation alone, but for the edges.
    high = torch.tensor([0.0, 0, 1, -1, 0, 0, 0], dtype=torch.float64)
    expected = (patches @ high).var(correction=0)
    torch.testing.assert_close(high @ covariance @ high, expected, rtol=1e-3, atol=1e-12)


def test_windows_with_an_offset_are_normalised_as_by_the_modules():
    model, reference = make_pair("cnn", "relu", 0.0)
    x = 30 + 0.03 * torch.randn(4, 1, 16000)
    accelerate(model, CPU)(x)
    reference.double()(x.double())
    for (name, ours), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=1e-4, msg=name)


# ------------------------------------------------------------------------------------------------------------- dropout


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


# --------------------------------------------------------------------------------------------------------- compilation


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
        without_compiler.setattr(sys.modules[fit.__module__], "accelerate", lambda model, device: model)
        whole = fit(config, data, runs_dir=tmp_path / "whole", device="cpu")
        with pytest.raises(KeyboardInterrupt):
            fit(config, data, runs_dir=tmp_path / "resumed", device="cpu", progress=stop)
    resumed = fit(config, data, runs_dir=tmp_path / "resumed", device="cpu")
    assert whole.environment["path"] == resumed.environment["path"] == REFERENCE
    assert whole.history.drop(columns="seconds").equals(resumed.history.drop(columns="seconds"))
    compiled_run = fit(config, data, runs_dir=tmp_path / "compiled", device="cpu")
    assert compiled_run.environment["path"] == COMPILED


def test_a_second_process_finds_the_compiled_kernels(tmp_path):
    first = compiled.compile_kernels(compiled.find_compiler(), tmp_path)
    written = first.stat().st_mtime_ns
    assert compiled.compile_kernels(compiled.find_compiler(), tmp_path) == first
    assert first.stat().st_mtime_ns == written


NO_FOLDER = Path("/dev/null/cache")  # can be neither made nor written


@pytest.mark.slow
def test_where_the_cache_cannot_be_written_the_next_process_finds_the_kernels_nevertheless(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # on Linux, where the user keeps caches
    first = compiled.compile_kernels(compiled.find_compiler(), NO_FOLDER)
    assert first.parent == Path(pooch.os_cache("audioclf"))
    written = first.stat().st_mtime_ns
    code = (
        "from pathlib import Path; from audioclf_lib.training.accelerate import compiled;"
        f"print(compiled.compile_kernels(compiled.find_compiler(), Path('{NO_FOLDER}')))"
    )
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(second) == first
    assert first.stat().st_mtime_ns == written


def test_kernels_in_a_cache_that_can_only_be_read_are_used(monkeypatch, tmp_path):
    cache, compiler = tmp_path / "cache", compiled.find_compiler()
    library = compiled.compile_kernels(compiler, cache)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert compiled.compile_kernels(compiler, cache) == library


def test_a_library_is_never_loaded_from_a_folder_that_others_may_have_made(monkeypatch, tmp_path):
    """Where the user has no folder for caches either, each process makes one that only its user can enter."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: NO_FOLDER / project)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    libraries = [compiled.compile_kernels(compiled.find_compiler(), NO_FOLDER) for _ in range(2)]
    assert libraries[0].parent != libraries[1].parent
    assert [stat.S_IMODE(library.parent.stat().st_mode) for library in libraries] == [0o700] * 2
