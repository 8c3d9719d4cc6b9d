"""The compiled kernels as differentiable functions.

Activations are (B, time, channels), contiguous: channels last, as the kernels want them. Each function has the same
value and gradients as the layers named in its docstring. A batch is handed to as many threads as torch uses.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from audioclf_lib.training.accelerate.compiled import DropoutArguments, load_kernels

# Windows in a part of a batch, their mean, and their sum of squared or multiplied deviations from it.
Moments = tuple[int, Tensor, Tensor]
_executor = ThreadPoolExecutor(thread_name_prefix="kernels")
_local = threading.local()


class Dropout:
    """A dropout layer's rate and this step's 64-bit key: together they say which elements are dropped.

    Args:
        rate: probability that an element is dropped.
        key: 64 random bits.
    """

    def __init__(self, rate: float, key: int = 0) -> None:
        threshold = round(rate * 2**32)
        self.rate, self.scale = rate, 1 / (1 - rate)
        self.arguments = DropoutArguments(key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF, threshold, self.scale)


NO_DROPOUT = Dropout(0.0)


def draw_dropout(rate: float) -> Dropout:
    """Dropout with a fresh key from torch's CPU generator."""
    return Dropout(rate, int(torch.randint(-(2**63), 2**63 - 1, ()).item())) if rate > 0 else NO_DROPOUT


def drop(x: Tensor, dropout: Dropout) -> Tensor:
    """``F.dropout``: drop elements of ``x`` (any shape) and scale the others by 1 / (1 - rate)."""
    dropped: Tensor = x if dropout.rate == 0 else _Drop.apply(x, dropout)  # type: ignore[no-untyped-call]
    return dropped


def patch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (7,) and covariance (7, 7) of convolution 1's input patches (kernel 7, stride 2, padding 3), float64.

    Exact, zero-padded patches at the edges included.

    Args:
        x: (B, 16000).
    """
    batch, length = x.shape
    library = _library()

    def part(start: int, stop: int) -> Moments:
        moments = stop - start, torch.zeros(7, dtype=torch.float64), torch.zeros(7, 7, dtype=torch.float64)
        library.patch_moments(_p(x[start:stop]), stop - start, length, *map(_p, moments[1:]), _p(_scratch(length + 64)))
        return moments

    counts, means, deviations = _stacked(_in_threads(part, batch))  # (parts, 1), (parts, 7), (parts, 7, 7)
    mean = (counts * means).sum(0) / batch
    between = (counts * (means - mean)).T @ (means - mean)
    return mean, (deviations.sum(0) / (length // 2) + between) / batch


def channel_statistics(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every channel: (B, T, C) -> two (C,), float64."""
    batch, length, channels = z.shape
    library = _library()

    def part(start: int, stop: int) -> Moments:
        moments = stop - start, *torch.zeros(2, channels, dtype=torch.float64)
        library.channel_moments(_p(z[start:stop]), (stop - start) * length, channels, *map(_p, moments[1:]))
        return moments

    counts, means, deviations = _stacked(_in_threads(part, batch))  # (parts, 1), (parts, C), (parts, C)
    mean = (counts * means).sum(0) / batch
    return mean, (deviations / length + counts * (means - mean) ** 2).sum(0) / batch


def _stacked(parts: list[Moments]) -> tuple[Tensor, Tensor, Tensor]:
    """Windows (parts, 1), means and sums of products of deviations of all parts of a batch."""
    counts, means, deviations = zip(*parts, strict=True)
    return torch.tensor(counts, dtype=torch.float64)[:, None], torch.stack(means), torch.stack(deviations)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: Dropout) -> Tensor:
        ctx.dropout = dropout
        return _run_dropout(x, dropout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _run_dropout(gradient, ctx.dropout), None


def _run_dropout(x: Tensor, dropout: Dropout) -> Tensor:
    x = x.contiguous()
    flat, y = x.view(-1), torch.empty_like(x)
    library = _library()

    def part(start: int, stop: int) -> None:
        library.dropout(_p(flat[start:stop]), stop - start, start, dropout.arguments, _p(y.view(-1)[start:stop]))

    # Parts start at multiples of 16 elements, so that the mask is the same for any number of threads.
    _in_threads(lambda start, stop: part(16 * start, min(16 * stop, len(flat))), -(-len(flat) // 16))
    return y


class Stem(torch.autograd.Function):
    """Convolution 1 (kernel 7, stride 2, padding 3), activation, dropout, max pool 2: (B, 16000) -> (B, 4000, 128).

    Args of ``apply``:
        x: (B, 16000), without a gradient.
        weight: (7, 128), bias: (128,), batch norm 1 folded into both.
        dropout: of this step.
        relu: whether a ReLU stands in front of dropout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dropout: Dropout, relu: bool) -> Tensor:
        batch, length = x.shape
        # Dropout's scale is applied to the few weights instead of the many activations.
        folded_weight, folded_bias = (weight * dropout.scale).contiguous(), (bias * dropout.scale).contiguous()
        y = x.new_empty(batch, length // 4, 128)
        keeps_flows = any(ctx.needs_input_grad) or dropout.rate > 0  # an evaluation without gradients needs none
        flows = torch.empty(y.shape if keeps_flows else (batch, 0), dtype=torch.uint8)
        library = _library()

        def part(start: int, stop: int) -> None:
            library.stem_forward(
                *(_p(x[start:stop]), stop - start, length, _p(folded_weight), _p(folded_bias)),
                *(start * length // 2 * 128, dropout.arguments, int(relu), int(keeps_flows)),
                *(_p(y[start:stop]), _p(flows[start:stop]), _p(_scratch(length + 8))),
            )

        _in_threads(part, batch)
        ctx.save_for_backward(x, flows)
        ctx.scale = dropout.scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        x, flows = ctx.saved_tensors
        batch, length = x.shape
        dy = dy.contiguous()
        library = _library()

        def part(start: int, stop: int) -> Tensor:
            sums = torch.zeros(8, 128, dtype=torch.float64)
            library.stem_backward(
                *(_p(x[start:stop]), stop - start, length, _p(dy[start:stop]), _p(flows[start:stop])),
                *(_p(sums[:7]), _p(sums[7]), _p(_scratch(length + 8))),
            )
            return sums

        sums = sum(_in_threads(part, batch), torch.zeros(8, 128, dtype=torch.float64)) * ctx.scale
        return None, sums[:7].float(), sums[7].float(), None, None


class NormPool(torch.autograd.Function):
    """Batch norm, activation, dropout, and max or average pool 2: (B, T, C) -> (B, T / 2, C).

    Args of ``apply``:
        z: (B, T, C), T even, C a multiple of 16.
        gamma, beta: (C,) scale and shift of the batch norm.
        mean, variance: (C,) statistics to normalise by.
        eps: of the batch norm.
        batch_statistics: whether the statistics are those of ``z``, so that the gradient flows through them.
        dropout: of this step.
        relu: whether a ReLU stands in front of dropout.
        average: average pool instead of max pool.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        batch_statistics: bool,
        dropout: Dropout,
        relu: bool,
        average: bool,
    ) -> Tensor:
        batch, length, channels = z.shape
        inverse_std = (variance.double() + eps).rsqrt()
        scale = gamma.double() * inverse_std
        shift = beta.double() - mean.double() * scale
        # Dropout's scale is positive, so it commutes with ReLU and pooling and goes into the few factors.
        folded_scale, folded_shift = (scale * dropout.scale).float(), (shift * dropout.scale).float()
        y = z.new_empty(batch, length // 2, channels)
        flows = torch.empty(y.shape, dtype=torch.uint8)
        library = _library()

        def part(start: int, stop: int) -> None:
            library.norm_pool_forward(
                *(_p(z[start:stop]), (stop - start) * length, channels, _p(folded_scale), _p(folded_shift)),
                *(start * length * channels, dropout.arguments, int(relu), int(average)),
                *(_p(y[start:stop]), _p(flows[start:stop])),
            )

        _in_threads(part, batch)
        ctx.save_for_backward(z, flows, gamma, mean, inverse_std)
        ctx.batch_statistics = batch_statistics
        ctx.factor = dropout.scale * (0.5 if average else 1.0)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        z, flows, gamma, mean, inverse_std = ctx.saved_tensors
        batch, length, channels = z.shape
        dy = dy.contiguous()
        library = _library()

        def sums_part(start: int, stop: int) -> Tensor:
            sums = torch.zeros(2, channels, dtype=torch.float64)
            library.norm_pool_gradient_sums(
                *(_p(z[start:stop]), (stop - start) * length, channels, _p(dy[start:stop]), _p(flows[start:stop])),
                _p(sums),
            )
            return sums

        total, product = ctx.factor * sum(_in_threads(sums_part, batch), torch.zeros(2, channels, dtype=torch.float64))
        dbeta = total
        dgamma = (product - mean.double() * total) * inverse_std
        # dz = γ/σ (g - mean(g) - ẑ mean(g ẑ)), written as a·g + b·z + c for every channel (Ioffe and Szegedy 2015).
        a = gamma.double() * inverse_std
        b, c = torch.zeros_like(a), torch.zeros_like(a)
        if ctx.batch_statistics:
            b = -a * inverse_std * dgamma / (batch * length)
            c = -a * dbeta / (batch * length) - b * mean.double()
        factors = [(a * ctx.factor).float(), b.float(), c.float()]
        dz = torch.empty_like(z)

        def part(start: int, stop: int) -> None:
            library.norm_pool_backward(
                *(_p(z[start:stop]), (stop - start) * length, channels, _p(dy[start:stop]), _p(flows[start:stop])),
                *(*(_p(factor) for factor in factors), _p(dz[start:stop])),
            )

        _in_threads(part, batch)
        return dz, dgamma.float(), dbeta.float(), *(None,) * 7


def _library() -> ctypes.CDLL:
    library = load_kernels()
    assert library is not None, "accelerate() makes a fast network only where the kernels are there"
    return library


def _p(tensor: Tensor) -> ctypes.c_void_p:
    """Address of a contiguous tensor's data."""
    return ctypes.c_void_p(tensor.data_ptr())


def _scratch(length: int) -> Tensor:
    """This thread's working memory."""
    buffer = getattr(_local, "buffer", None)
    if buffer is None or len(buffer) < length:
        _local.buffer = buffer = torch.empty(length)
    return buffer


def _in_threads(part: Callable[[int, int], Any], n: int) -> list[Any]:
    """Call ``part(start, stop)`` on consecutive parts of range(n), one per thread of torch's; results in order."""
    threads = min(torch.get_num_threads(), n)
    bounds = [n * i // threads for i in range(threads + 1)]
    first, *others = pairwise(bounds)
    running = [_executor.submit(part, *bounds) for bounds in others]
    return [part(*first), *(other.result() for other in running)]
