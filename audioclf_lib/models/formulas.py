"""What each kind of layer does to a shape, how many parameters it has, and the LaTeX of both.

A formula takes a layer and the shape of its input (without the batch axis) and reads nothing off the layer but
hyper-parameters (kernel size, stride, ...): no tensor is touched and torch is not imported.

Formulas: Dumoulin and Visin (2016), "A guide to convolution arithmetic for deep learning", for lengths; Vaswani et al.
(2017), "Attention is all you need", for attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Shape = tuple[int, ...]
FORMULA_BREAK = r", \quad "  # between two formulas of one layer, where a table may begin a new line


@dataclass(frozen=True)
class Step:
    """One step of a forward pass: what comes out, how many parameters, and why; and where it stands in the model.

    Attributes:
        output_shape: without the batch axis.
        shape_latex, parameters_latex: both derivations with the numbers substituted.
        explanation: one plain sentence.
        parameters: learnable numbers (a batch norm's running mean and variance are buffers and not among them).
        in_place: True if the output overwrites the input and so takes no memory of its own.
        kind: the layer's type as torch names it, e.g. ``Conv1d``; plain words for a step that is no module.
        part: name of the step within a layer that takes several.
        name: path of the layer in the model, without ``base.``, e.g. ``conv1`` or ``encoder.0.linear1``.
        block: heading of the group of layers that it belongs to.
        input_shape: without the batch axis.
        frozen: how many of the parameters are not trained.
    """

    output_shape: Shape
    shape_latex: str
    explanation: str
    parameters: int = 0
    parameters_latex: str = "P = 0"
    in_place: bool = False
    kind: str = ""
    part: str = ""
    name: str = ""
    block: str = ""
    input_shape: Shape = ()
    frozen: int = 0


Formula = Callable[[Any, Shape], Step]


def output_length(length: int, kernel: int, stride: int, padding: int = 0) -> int:
    """Positions that a kernel takes on a padded signal: floor((length + 2 padding - kernel) / stride) + 1."""
    return (length + 2 * padding - kernel) // stride + 1


def split_width(width: int, num_heads: int) -> list[int]:
    """Widths of the attention heads, as even as they can be: the first ``width mod num_heads`` are wider by one."""
    return [width // num_heads + (head < width % num_heads) for head in range(num_heads)]


# --------------------------------------------------------------------------------------------------- numbers and LaTeX


def tex_number(value: int) -> str:
    """80010 -> ``\\text{80,010}``, since a comma in mathematics would be set with a space; 250 -> ``250``."""
    return rf"\text{{{value:,}}}" if value >= 1000 else str(value)


def tex_shape(shape: Shape) -> str:
    """(128, 8000) -> ``128 \\times \\text{8,000}``."""
    return r" \times ".join(map(tex_number, shape))


def tex_product(values: Sequence[int]) -> str:
    """(32, 250) -> ``32 \\cdot 250``."""
    return r" \cdot ".join(map(tex_number, values))


def tex_change(before: Shape, after: Shape) -> str:
    """(32, 250), (10,) -> ``32 \\times 250 \\to 10``."""
    return rf"{tex_shape(before)} \to {tex_shape(after)}"


def tex_length(axis: str, length: int, kernel: int, stride: int, padding: int) -> str:
    """The formula of ``output_length`` with its numbers; ``axis`` is the letter of the length."""
    padded = f"{tex_number(length)} + 2 \\cdot {padding}" if padding else tex_number(length)
    quotient = rf"\text{{{(length + 2 * padding - kernel) / stride:,.10g}}}"
    fraction = rf"\frac{{{padded} - {tex_number(kernel)}}}{{{stride}}}"
    return (
        rf"{axis}_{{\mathrm{{out}}}} = \left\lfloor {fraction} \right\rfloor + 1"
        rf" = \lfloor {quotient} \rfloor + 1 = {tex_number(output_length(length, kernel, stride, padding))}"
    )


def text_shape(shape: Shape) -> str:
    """(128, 8000) -> ``(128, 8000)``; (10,) -> ``(10)``."""
    return f"({', '.join(map(str, shape))})"


def per_axis(value: Any, axes: int) -> list[Any]:
    """A hyper-parameter for every axis, which torch keeps as 2 or as (2, 2)."""
    return list(value) if isinstance(value, Sequence) else [value] * axes


def span(layer: Any, axes: int) -> list[int]:
    """Positions from the first to the last value of a kernel, per axis: ``dilation (kernel - 1) + 1``."""
    kernels, dilations = per_axis(layer.kernel_size, axes), per_axis(getattr(layer, "dilation", 1), axes)
    return [dilation * (kernel - 1) + 1 for kernel, dilation in zip(kernels, dilations, strict=True)]


# ----------------------------------------------------------------------------------------------------- kinds of layers


def slide(layer: Any, lengths: Sequence[int]) -> tuple[Shape, str, str]:
    """Output lengths of a convolution or pooling, their LaTeX, and how its kernel moves, in words."""
    axes = len(lengths)
    spans, strides = span(layer, axes), per_axis(layer.stride, axes)
    how = f"stride {_by(dict.fromkeys(strides))}"
    if spans != per_axis(layer.kernel_size, axes):
        how += f", dilated to span {_by(spans)} positions"
    if layer.padding == "same":
        return tuple(lengths), tex_change(tuple(lengths), tuple(lengths)), f"{how}, padded to keep the length"
    padding = per_axis(0 if layer.padding == "valid" else layer.padding, axes)
    if any(padding):
        how += f", padding {_by(dict.fromkeys(padding))}"
    numbers = list(zip(lengths, spans, strides, padding, strict=True))
    latex = [tex_length(letter, *each) for letter, each in zip("HW" if axes == 2 else "L", numbers, strict=True)]
    return tuple(output_length(*each) for each in numbers), FORMULA_BREAK.join(latex), how


def _by(values: Iterable[int]) -> str:
    """[2] -> ``2``; [2, 1] -> ``2 × 1``."""
    return " × ".join(map(str, values))


def product(factors: Sequence[int], bias: int, latex: str = "") -> tuple[int, str]:
    """Number of parameters and its LaTeX: the product of ``factors`` (written as ``latex``, if given), and ``bias``."""
    total = math.prod(factors) + bias
    return total, f"P = {latex or tex_product(factors)}{f' + {tex_number(bias)}' if bias else ''} = {tex_number(total)}"


def derive_conv(layer: Any, shape: Shape) -> Step:
    channels_in, *lengths = shape
    channels, kernels = layer.out_channels, per_axis(layer.kernel_size, len(lengths))
    output, latex, how = slide(layer, lengths)
    seen = channels_in // layer.groups  # by each filter
    bias = channels if layer.bias is not None else 0
    size = f"{'length' if len(lengths) == 1 else 'size'} {_by(kernels)}"
    over = f"{seen} channel{'s' if seen > 1 else ''}{' each' if layer.groups > 1 else ''}"
    explanation = f"{channels} filters of {size} over {over}, {how}; {'one bias per filter' if bias else 'no bias'}."
    return Step((channels, *output), latex, explanation, *product([*kernels, seen, channels], bias))


def derive_pool(layer: Any, shape: Shape) -> Step:
    channels, *lengths = shape
    output, latex, how = slide(layer, lengths)
    size = _by(per_axis(layer.kernel_size, len(lengths)))
    return Step((channels, *output), latex, f"The {_pooled(layer)} of every {size} neighbours in a channel, {how}.")


def derive_adaptive_pool(layer: Any, shape: Shape) -> Step:
    channels, *lengths = shape
    asked = per_axis(layer.output_size, len(lengths))
    output = (channels, *(length if size is None else size for size, length in zip(asked, lengths, strict=True)))
    explanation = f"Each channel is cut into {_by(output[1:])} equal parts, and the {_pooled(layer)} of each is taken."
    return Step(output, tex_change(shape, output), explanation)


def _pooled(layer: Any) -> str:
    return "largest" if "Max" in type(layer).__name__ else "mean"


def derive_batch_norm(_: Any, shape: Shape) -> Step:
    explanation = "Each channel is normalised, then scaled and shifted by 2 learnt numbers each; "
    explanation += "running means and variances are buffers, not parameters."
    return Step(shape, tex_change(shape, shape), explanation, *product([2, shape[0]], 0))


def derive_layer_norm(layer: Any, shape: Shape) -> Step:
    explanation = "Each token (behind a residual connection, the sum) is normalised, "
    explanation += "then each of its features scaled and shifted by 2 learnt numbers each."
    return Step(shape, tex_change(shape, shape), explanation, *product([2, math.prod(layer.normalized_shape)], 0))


def derive_linear(layer: Any, shape: Shape) -> Step:
    return linear(layer.in_features, layer.out_features, layer.bias, shape)


def linear(width: int, outputs: int, bias: Any, shape: Shape) -> Step:
    """A linear layer on the last axis, or on the whole flattened input when its width asks for that."""
    flattens = width != shape[-1]
    output = (outputs,) if flattens else (*shape[:-1], outputs)
    values, latex, factors = tex_product(shape), tex_change(shape, output), ""
    explanation = f"Each of {outputs} outputs weighs all {width} inputs{' and adds a bias' if bias is not None else ''}"
    if flattens:
        explanation += f"; the {text_shape(shape)} values are flattened first"
        latex, factors = rf"{values} = {tex_number(width)} \to {outputs}", rf"({values}) \cdot {tex_number(outputs)}"
    elif len(shape) > 1:
        explanation += ", token by token"
    number = product([width, outputs], 0 if bias is None else outputs, factors)
    return Step(output, latex, f"{explanation}.", *number)


def derive_attention(layer: Any, shape: Shape) -> list[Step]:
    """(T, width) -> (T, width): each head h of width d_h gives softmax(Q Kᵀ / √d_h) V of shape (T, d_h)."""
    tokens, width = shape
    bias = layer.in_proj_bias if hasattr(layer, "in_proj_bias") else layer.in_projection.bias
    widths = split_width(width, layer.num_heads)
    heads = " + ".join(map(str, widths)) + (f" = {width}" if len(widths) > 1 else "")
    latex = (
        r"\mathrm{softmax}\left(\frac{Q_h K_h^{\top}}{\sqrt{d_h}}\right) V_h : "
        rf"({tokens} \times {tokens}) \cdot ({tokens} \times d_h) = {tokens} \times d_h"
        rf"{FORMULA_BREAK}\sum_h d_h = {heads}"
    )
    split = f"split over {len(widths)} heads" if len(widths) > 1 else "in one head"
    explanation = f"Queries, keys and values of width {width}, {split}; attention itself has nothing to learn."
    into, out = linear(width, 3 * width, bias, shape), linear(width, width, bias, shape)
    return [
        replace(into, kind="Linear", part="in_projection"),
        Step(shape, latex, explanation, kind="Self-attention"),
        replace(out, kind="Linear", part="out_projection"),
    ]


def derive_mel_spectrogram(layer: Any, shape: Shape) -> Step:
    *channels, length = shape
    numbers = length, layer.n_fft, layer.hop_length, layer.pad + layer.spectrogram.center * (layer.n_fft // 2)
    transform = f"a Fourier transform of {layer.n_fft} samples every {layer.hop_length} samples"
    explanation = f"Power in {layer.n_mels} bands of the mel scale, from {transform}; nothing in it is learnt."
    return Step((*channels, layer.n_mels, output_length(*numbers)), tex_length("W", *numbers), explanation)


def derive_flatten(_: Any, shape: Shape) -> Step:
    values = math.prod(shape)
    return Step((values,), f"{tex_product(shape)} = {tex_number(values)}", "The values form one row.")


def derive_cls_token(_: None, shape: Shape) -> Step:
    tokens, width = shape
    output = (tokens + 1, width)
    explanation = f"Each of the {tokens} channels is a token of width {width}; one CLS token of zeros goes in front, "
    latex = rf"{tex_shape(shape)} \to ({tokens} + 1) \times {tex_number(width)} = {tex_shape(output)}"
    return Step(output, latex, explanation + "which is no parameter.", kind="Tokens and CLS")


def derive_cls_output(_: None, shape: Shape) -> Step:
    return Step(shape[1:], tex_change(shape, shape[1:]), "Only the CLS token's output goes on.", kind="CLS output")


def unchanged(sentence: str, kind: str = "") -> Formula:
    """A formula for what keeps the shape and has nothing to learn; ``{layer.p}`` in the sentence is filled in."""

    def derive(layer: Any, shape: Shape) -> Step:
        in_place = bool(getattr(layer, "inplace", False))
        explanation = sentence.format(layer=layer) + (", in the memory they lie in." if in_place else ".")
        return Step(shape, tex_change(shape, shape), explanation, in_place=in_place, kind=kind)

    return derive


RELU = "Negative values become zero"
# By the name of a layer's type or of a functional step.
FORMULAS: dict[str, Formula | Callable[[Any, Shape], list[Step]]] = {
    "Dropout": unchanged("In training, each value is zeroed with probability {layer.p:g}"),
    "ReLU": unchanged(RELU),
    "relu": unchanged(RELU, kind="ReLU"),  # as a function
    **dict.fromkeys(["BatchNorm1d", "BatchNorm2d"], derive_batch_norm),
    "LayerNorm": derive_layer_norm,
    **dict.fromkeys(["Conv1d", "Conv2d"], derive_conv),
    **dict.fromkeys(["MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d"], derive_pool),
    "MelSpectrogram": derive_mel_spectrogram,
    **dict.fromkeys([f"Adaptive{kind}Pool{axes}d" for kind in ("Avg", "Max") for axes in (1, 2)], derive_adaptive_pool),
    **dict.fromkeys(["MultiheadAttention", "MultiHeadSelfAttention"], derive_attention),
    "Linear": derive_linear,
    "Flatten": derive_flatten,
    "cls_token": derive_cls_token,
    "cls_output": derive_cls_output,
}
# Of other layers that keep the shape and have no parameters, such as activations; the name of the layer's type goes in.
KEEPS = "The values pass through {}, which keeps their shape and has nothing to learn"
