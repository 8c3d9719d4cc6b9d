"""The compiled kernels as differentiable functions.

Activations are (B, time, channels), contiguous: channels last, as the kernels want them. Each function has the same
value and gradients as the layers named in its docstring. A batch is handed to as many threads as torch uses.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from audioclf_lib.training.accelerate.compiled import DropoutArguments, load_kernels

Statistics = tuple[Tensor, Tensor, bool]  # see NormPool
_executor = ThreadPoolExecutor(thread_name_prefix="kernels")


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
    # (parts, 1), (parts, 7), (parts, 7, 7), (7,)
    counts, means, deviations, mean = _moments("patch_moments", x, (7, 7), scratch=length + 64)
    between = (counts * (means - mean)).T @ (means - mean)
    return mean, (deviations.sum(0) / (length // 2) + between) / batch


def channel_statistics(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of every channel: (B, T, C) -> two (C,), float64."""
    batch, length, channels = z.shape
    # (parts, 1), (parts, C), (parts, C), (C,)
    counts, means, deviations, mean = _moments("channel_moments", z, (channels,))
    return mean, (deviations / length + counts * (means - mean) ** 2).sum(0) / batch


def _moments(kernel: str, x: Tensor, shape: tuple[int, ...], scratch: int = 0) -> tuple[Tensor, ...]:
    """Of each thread's part of a batch: its size, its mean and its deviations (of ``shape``); and the mean of all."""

    def moments(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        mean, deviations = _zeros(shape[0]), _zeros(*shape)
        _run(kernel, *_rows(x[part]), mean, deviations, *([torch.empty(scratch)] if scratch else []))
        return _zeros(1) + len(x[part]), mean, deviations

    counts, means, deviations = map(torch.stack, zip(*_in_threads(moments, len(x)), strict=True))
    return counts, means, deviations, (counts * means).sum(0) / len(x)


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

    # Parts start at multiples of 16 elements, so that the mask is the same for any number of threads.
    def run(part: slice) -> None:
        elements = slice(16 * part.start, min(16 * part.stop, len(flat)))
        _run("dropout", flat[elements], len(flat[elements]), elements.start, dropout.arguments, y.view(-1)[elements])

    _in_threads(run, -(-len(flat) // 16))
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
        folded = (weight * dropout.scale).contiguous(), (bias * dropout.scale).contiguous()
        y = x.new_empty(batch, length // 4, 128)
        keeps_flows = any(ctx.needs_input_grad) or dropout.rate > 0  # an evaluation without gradients needs none
        flows = torch.empty(y.shape if keeps_flows else (batch, 0), dtype=torch.uint8)

        def run(part: slice) -> None:
            how = part.start * length // 2 * 128, dropout.arguments, relu, keeps_flows
            _run("stem_forward", *_rows(x[part]), *folded, *how, y[part], flows[part], torch.empty(length + 8))

        _in_threads(run, batch)
        ctx.save_for_backward(x, flows)
        ctx.scale = dropout.scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        x, flows = ctx.saved_tensors
        dy = dy.contiguous()

        def gradient(part: slice) -> Tensor:
            sums = _zeros(8, 128)
            scratch = torch.empty(x.shape[1] + 8)
            _run("stem_backward", *_rows(x[part]), dy[part], flows[part], sums[:7], sums[7], scratch)
            return sums

        sums = sum(_in_threads(gradient, len(x)), _zeros(8, 128)) * ctx.scale
        return None, sums[:7].float(), sums[7].float(), None, None


class Convolution(torch.autograd.Function):
    """``F.conv1d`` with stride 2 and channels last: (B, T, C) -> (B, T / 2, C').

    PyTorch's gradient with respect to the weight is far slower than its other two passes in this layout; as one matrix
    product per tap it is faster.

    Args of ``apply``:
        x: (B, T, C), T even.
        weight: (C', C, kernel), kernel odd; bias: (C',). Padding is half the kernel, rounded down.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        z = F.conv2d(*_images(x, weight), bias, stride=(1, 2), padding=(0, weight.shape[2] // 2))
        return z.permute(0, 2, 3, 1)[:, 0].contiguous()  # already so in memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dz = dz.contiguous()
        dx, kernel = None, weight.shape[2]
        if ctx.needs_input_grad[0]:
            stride, padding, dilation, wanted = (1, 2), (0, kernel // 2), (1, 1), (True, False, False)
            geometry = None, stride, padding, dilation, False, (0, 0), 1, wanted
            dz_image = dz.unsqueeze(1).permute(0, 3, 1, 2)
            (dx_image, _, _) = torch.ops.aten.convolution_backward(dz_image, *_images(x, weight), *geometry)
            dx = dx_image.permute(0, 2, 3, 1)[:, 0]
        taps = []
        for offset in range(-(kernel // 2), kernel // 2 + 1):
            first = max(0, (1 - offset) // 2)  # output whose input 2 t + offset is the first inside
            inputs = x[:, 2 * first + offset :: 2][:, : dz.shape[1] - first]
            outputs = dz[:, first : first + inputs.shape[1]]
            taps.append(torch.bmm(outputs.transpose(1, 2), inputs).sum(0))  # (C', C)
        return dx, torch.stack(taps, 2), dz.sum((0, 1))


def _images(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` (B, T, C) as (B, C, 1, T) and ``weight`` (C', C, k) as (C', C, 1, k), both channels last in memory."""
    image = x.unsqueeze(1).permute(0, 3, 1, 2)
    return image, weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class NormPool(torch.autograd.Function):
    """Batch norm, activation, dropout, and max or average pool 2: (B, T, C) -> (B, T / 2, C).

    Args of ``apply``:
        z: (B, T, C), T even, C a multiple of 16.
        gamma, beta: (C,) scale and shift of the batch norm.
        statistics: mean and 1/σ (C,) to normalise by, float64, and whether they are those of ``z``, so that the
            gradient flows through them.
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
        statistics: Statistics,
        dropout: Dropout,
        relu: bool,
        average: bool,
    ) -> Tensor:
        batch, length, channels = z.shape
        mean, inverse_std, of_batch = statistics
        scale = gamma.double() * inverse_std
        shift = beta.double() - mean * scale
        # Dropout's scale is positive, so it commutes with ReLU and pooling and goes into the few factors.
        folded = (scale * dropout.scale).float(), (shift * dropout.scale).float()
        y = z.new_empty(batch, length // 2, channels)
        flows = torch.empty(y.shape, dtype=torch.uint8)

        def run(part: slice) -> None:
            how = part.start * length * channels, dropout.arguments, relu, average
            _run("norm_pool_forward", *_rows(z[part]), *folded, *how, y[part], flows[part])

        _in_threads(run, batch)
        ctx.save_for_backward(z, flows, gamma, mean, inverse_std)
        ctx.of_batch = of_batch
        ctx.factor = dropout.scale * (0.5 if average else 1.0)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        z, flows, gamma, mean, inverse_std = ctx.saved_tensors
        batch, length, channels = z.shape
        dy = dy.contiguous()

        def gradient_sums(part: slice) -> Tensor:
            sums = _zeros(2, channels)
            _run("norm_pool_gradient_sums", *_rows(z[part]), dy[part], flows[part], sums)
            return sums

        total, product = ctx.factor * sum(_in_threads(gradient_sums, batch), _zeros(2, channels))
        dbeta = total
        dgamma = (product - mean * total) * inverse_std
        # dz = γ/σ (g - mean(g) - ẑ mean(g ẑ)), written as a·g + b·z + c for every channel (Ioffe and Szegedy 2015).
        a = gamma.double() * inverse_std
        b, c = torch.zeros_like(a), torch.zeros_like(a)
        if ctx.of_batch:
            b = -a * inverse_std * dgamma / (batch * length)
            c = -a * dbeta / (batch * length) - b * mean
        factors = [(a * ctx.factor).float(), b.float(), c.float()]
        dz = torch.empty_like(z)

        def run(part: slice) -> None:
            _run("norm_pool_backward", *_rows(z[part]), dy[part], flows[part], *factors, dz[part])

        _in_threads(run, batch)
        return dz, dgamma.float(), dbeta.float(), None, None, None, None


def _run(kernel: str, *arguments: Tensor | int | DropoutArguments) -> None:
    """Call a function of kernels.c; a tensor, which must be contiguous, stands for the address of its data."""
    library = load_kernels()
    assert library is not None, "accelerate() makes a fast network only where the kernels are there"
    getattr(library, kernel)(*(each.data_ptr() if isinstance(each, Tensor) else each for each in arguments))


def _rows(x: Tensor) -> tuple[Tensor, int, int]:
    """A tensor (..., n) as the kernels take it: with the number of its rows and their length."""
    return x, x.numel() // x.shape[-1], x.shape[-1]


def _zeros(*shape: int) -> Tensor:
    """Where a kernel adds up sums or moments."""
    return torch.zeros(shape, dtype=torch.float64)


def _in_threads(run: Callable[[slice], Any], n: int) -> list[Any]:
    """Call ``run(part)`` on consecutive slices of range(n), one per thread of torch's; results in order."""
    threads = min(torch.get_num_threads(), n)
    bounds = [n * i // threads for i in range(threads + 1)]
    first, *others = (slice(*each) for each in pairwise(bounds))
    running = [_executor.submit(run, part) for part in others]
    return [run(first), *(other.result() for other in running)]
