"""Output shapes and parameter counts of both architectures by formula, step by step, with their LaTeX.

The hyper-parameters (kernel size, stride, ...) are read off the model's layers; shapes and counts follow from them by
the formulas alone: no tensor is touched and torch is not imported. The tests compare every line with what torch says.

Formulas: Dumoulin and Visin (2016), "A guide to convolution arithmetic for deep learning", for lengths; Araujo, Norris
and Sim (2019), "Computing receptive fields of convolutional neural networks", for the receptive field; Vaswani et al.
(2017), "Attention is all you need", for attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

Shape = tuple[int, ...]

BYTES_PER_NUMBER = 4  # float32
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
BYTES_PER_MB = 2**20  # torchsummary's megabyte, which the original report's sizes are given in

# What stands in front of a derivation: the two formulas that all lengths and convolutions follow.
NOTATION = r"""A convolution or pooling with kernel length $k$, stride $s$ and padding $p$ at each end turns a length of
$L_{\mathrm{in}}$ into

$$ L_{\mathrm{out}} = \left\lfloor \frac{L_{\mathrm{in}} + 2 p - k}{s} \right\rfloor + 1 , $$

where $\lfloor x \rfloor$ is the largest integer not above $x$. A convolution from $C_{\mathrm{in}}$ to
$C_{\mathrm{out}}$ channels has

$$ P = k \cdot C_{\mathrm{in}} \cdot C_{\mathrm{out}} + C_{\mathrm{out}} $$

parameters: its weights, and one bias per output channel."""


@dataclass(frozen=True)
class LayerDerivation:
    """One step of the forward pass: what goes in, what comes out, how many parameters, and why.

    Attributes:
        name: path of the layer in the model, without ``base.``, e.g. ``conv1`` or ``encoder.0.linear1``.
        kind: the layer's type as torch names it, e.g. ``Conv1d``; plain words for a step that is no module.
        block: heading of the group of layers that it belongs to.
        input_shape, output_shape: without the batch axis.
        parameters: learnable numbers (a batch norm's running mean and variance are buffers and not among them).
        shape_latex, parameters_latex: both derivations with the numbers substituted.
        explanation: one plain sentence.
        in_place: whether the output overwrites the input and so takes no memory of its own.
    """

    name: str
    kind: str
    block: str
    input_shape: Shape
    output_shape: Shape
    parameters: int
    shape_latex: str
    parameters_latex: str
    explanation: str
    in_place: bool = False


@dataclass(frozen=True)
class ModelTotals:
    """What torchsummary prints under its table; sizes in MB of 2**20 bytes, for a batch of one."""

    parameters: int
    trainable_parameters: int
    input_mb: float
    forward_backward_mb: float
    parameters_mb: float

    @property
    def total_mb(self) -> float:
        return self.input_mb + self.forward_backward_mb + self.parameters_mb


@dataclass(frozen=True)
class ReceptiveFieldStep:
    """How far one element behind layer ``name`` sees into the input, and the distance between two neighbours."""

    name: str
    kernel: int
    stride: int
    field: int  # samples
    jump: int  # samples


# ---------------------------------------------------------------------------------------------- formulas and numbers


def output_length(length: int, kernel: int, stride: int, padding: int = 0) -> int:
    """Positions that a kernel takes on a padded signal: floor((length + 2 padding - kernel) / stride) + 1."""
    return (length + 2 * padding - kernel) // stride + 1


def split_width(width: int, num_heads: int) -> list[int]:
    """Widths of the attention heads, as even as they can be: the first ``width mod num_heads`` are wider by one."""
    return [width // num_heads + (head < width % num_heads) for head in range(num_heads)]


def only(value: int | Sequence[int]) -> int:
    """The hyper-parameter of a one-dimensional layer, which torch keeps as 2 or as (2,)."""
    return value if isinstance(value, int) else value[0]


def tex_number(value: int) -> str:
    """80010 -> ``\\text{80,010}``, since a comma in mathematics would be set with a space; 250 -> ``250``."""
    return rf"\text{{{value:,}}}" if value >= 1000 else str(value)


def tex_shape(shape: Shape) -> str:
    """(128, 8000) -> ``128 \\times \\text{8,000}``."""
    return r" \times ".join(tex_number(size) for size in shape)


def text_shape(shape: Shape) -> str:
    """(128, 8000) -> ``(128, 8000)``; (10,) -> ``(10)``."""
    return f"({', '.join(map(str, shape))})"


def tex_sum(values: Sequence[int]) -> str:
    """``\\text{1,024} + 256 = \\text{1,280}``."""
    return " + ".join(map(tex_number, values)) + f" = {tex_number(sum(values))}"


def tex_length(length: int, kernel: int, stride: int, padding: int) -> str:
    padded = f"{tex_number(length)} + 2 \\cdot {padding}" if padding else tex_number(length)
    quotient = rf"\text{{{(length + 2 * padding - kernel) / stride:,.10g}}}"
    return (
        rf"L_{{\mathrm{{out}}}} = \left\lfloor \frac{{{padded} - {kernel}}}{{{stride}}} \right\rfloor + 1"
        rf" = \lfloor {quotient} \rfloor + 1 = {tex_number(output_length(length, kernel, stride, padding))}"
    )


def tex_unchanged(shape: Shape) -> str:
    return rf"{tex_shape(shape)} \to {tex_shape(shape)}"


# ------------------------------------------------------------------------------------------------- one kind of layer


@dataclass(frozen=True)
class Step:
    """The part of a derivation that depends on the kind of layer alone."""

    output_shape: Shape
    shape_latex: str
    explanation: str
    parameters: int = 0
    parameters_latex: str = "P = 0"
    in_place: bool = False


def derive_conv(layer: Any, shape: Shape) -> Step:
    channels_in, length = shape
    channels, kernel = layer.out_channels, only(layer.kernel_size)
    stride, padding = only(layer.stride), only(layer.padding)
    parameters = kernel * channels_in * channels + channels
    return Step(
        output_shape=(channels, output_length(length, kernel, stride, padding)),
        shape_latex=tex_length(length, kernel, stride, padding),
        explanation=f"{channels} filters of length {kernel} over {count(channels_in, 'channel')}, stride {stride}, "
        f"padding {padding}; one bias per filter.",
        parameters=parameters,
        parameters_latex=rf"P = {kernel} \cdot {tex_number(channels_in)} \cdot {tex_number(channels)}"
        rf" + {tex_number(channels)} = {tex_number(parameters)}",
    )


def derive_batch_norm(layer: Any, shape: Shape) -> Step:
    channels = layer.num_features
    return Step(
        output_shape=shape,
        shape_latex=tex_unchanged(shape),
        explanation="Each channel is normalised, then scaled and shifted by two learnt numbers; its running mean and "
        "variance are buffers, not parameters.",
        parameters=2 * channels,
        parameters_latex=rf"P = 2 \cdot {channels} = {tex_number(2 * channels)}",
    )


def derive_layer_norm(layer: Any, shape: Shape) -> Step:
    width = only(layer.normalized_shape)
    return Step(
        output_shape=shape,
        shape_latex=tex_unchanged(shape),
        explanation="The residual connection adds the sub-layer's input; each token is then normalised, and each of "
        "its features scaled and shifted by two learnt numbers.",
        parameters=2 * width,
        parameters_latex=rf"P = 2 \cdot {width} = {tex_number(2 * width)}",
    )


def derive_pool(layer: Any, shape: Shape) -> Step:
    channels, length = shape
    kernel, stride, padding = only(layer.kernel_size), only(layer.stride), only(layer.padding)
    what = "largest" if type(layer).__name__.startswith("Max") else "mean"
    return Step(
        output_shape=(channels, output_length(length, kernel, stride, padding)),
        shape_latex=tex_length(length, kernel, stride, padding),
        explanation=f"The {what} of every {kernel} neighbouring values of a channel, stride {stride}.",
    )


def derive_linear(layer: Any, shape: Shape) -> Step:
    """A linear layer on the last axis, or on the whole flattened input when its width asks for that."""
    width, outputs = layer.in_features, layer.out_features
    flattens = width != shape[-1]
    output_shape = (outputs,) if flattens else (*shape[:-1], outputs)
    flattened = tex_shape(shape).replace("times", "cdot")
    explanation = f"Each of {outputs} outputs weighs all {width} inputs and adds a bias"
    if flattens:
        explanation += f"; the {text_shape(shape)} values are flattened first"
    elif len(shape) > 1:
        explanation += ", token by token"
    parameters = width * outputs + outputs
    return Step(
        output_shape=output_shape,
        shape_latex=(rf"{flattened} = {tex_number(width)}" if flattens else tex_shape(shape))
        + rf" \to {tex_shape(output_shape)}",
        explanation=f"{explanation}.",
        parameters=parameters,
        parameters_latex=rf"P = {f'({flattened})' if flattens else tex_number(width)} \cdot {tex_number(outputs)}"
        rf" + {tex_number(outputs)} = {tex_number(parameters)}",
    )


def derive_dropout(layer: Any, shape: Shape) -> Step:
    return Step(shape, tex_unchanged(shape), f"In training, each value is zeroed with probability {layer.p:g}.")


def derive_relu(layer: Any, shape: Shape) -> Step:
    in_place = bool(getattr(layer, "inplace", False))
    where = ", in the memory they lie in" if in_place else ""
    return Step(shape, tex_unchanged(shape), f"Negative values become zero{where}.", in_place=in_place)


FORMULAS: dict[str, Callable[[Any, Shape], Step]] = {
    "Conv1d": derive_conv,
    "BatchNorm1d": derive_batch_norm,
    "LayerNorm": derive_layer_norm,
    "MaxPool1d": derive_pool,
    "AvgPool1d": derive_pool,
    "Linear": derive_linear,
    "Dropout": derive_dropout,
    "ReLU": derive_relu,
}


# ------------------------------------------------------------------------------------------------------ whole models


def derive_layers(model: Any, input_shape: Shape = (1, 16000)) -> list[LayerDerivation]:
    """Derive every step of a model's forward pass.

    Args:
        model: a :class:`~audioclf_lib.models.CNN` or :class:`~audioclf_lib.models.ConvTransformer`.
        input_shape: (channels, samples) of one window.

    Returns:
        One derivation per step, in forward order. An activation that is none (``Identity``) has no step.

    Raises:
        ValueError: the model holds a layer whose formula is not known.
    """
    derivation = Derivation(input_shape)
    derive_base(derivation, model.base)
    if hasattr(model, "encoder"):
        derive_cls_token(derivation)
        for index, layer in enumerate(model.encoder):
            derive_encoder_layer(derivation, layer, index)
        derive_cls_output(derivation)
    derivation.add("classifier", model.classifier, "Output layer")
    return derivation.layers


class Derivation:
    """The layers derived so far, and the shape that the next one receives."""

    def __init__(self, input_shape: Shape) -> None:
        self.shape = input_shape
        self.layers: list[LayerDerivation] = []

    def add(self, name: str, layer: Any, block: str) -> None:
        """Derive a module by its kind's formula."""
        kind = type(layer).__name__
        if kind not in FORMULAS:
            raise ValueError(f"layer {name} is a {kind}, for which no formula is known; add one to FORMULAS")
        self.add_step(name, kind, block, FORMULAS[kind](layer, self.shape))

    def add_step(self, name: str, kind: str, block: str, step: Step) -> None:
        self.layers.append(
            LayerDerivation(
                name=name,
                kind=kind,
                block=block,
                input_shape=self.shape,
                output_shape=step.output_shape,
                parameters=step.parameters,
                shape_latex=step.shape_latex,
                parameters_latex=step.parameters_latex,
                explanation=step.explanation,
                in_place=step.in_place,
            )
        )
        self.shape = step.output_shape


def derive_base(derivation: Derivation, base: Any) -> None:
    """The base's layers are defined in forward order and numbered by their block: conv1, ..., pool3."""
    for name, layer in base.named_children():
        if type(layer).__name__ != "Identity":
            derivation.add(name, layer, f"Convolution block {name[-1]}")


def derive_cls_token(derivation: Derivation) -> None:
    tokens, width = derivation.shape
    step = Step(
        output_shape=(tokens + 1, width),
        shape_latex=rf"{tex_shape((tokens, width))} \to ({tokens} + 1) \times {tex_number(width)}"
        rf" = {tex_shape((tokens + 1, width))}",
        explanation=f"Each of the {tokens} channels is a token of width {width}; one CLS token of zeros goes in front, "
        "which is no parameter.",
    )
    derivation.add_step("cls_token", "Tokens and CLS", "Tokens", step)


def derive_encoder_layer(derivation: Derivation, layer: Any, index: int) -> None:
    """Self-attention, then the feed-forward network, each followed by dropout, residual and layer norm."""
    path, block = f"encoder.{index}", f"Encoder layer {index + 1}"
    derivation.add(f"{path}.attention.in_projection", layer.attention.in_projection, block)
    derivation.add_step(
        f"{path}.attention", "Self-attention", block, derive_attention(layer.attention, derivation.shape)
    )
    derivation.add(f"{path}.attention.out_projection", layer.attention.out_projection, block)
    derivation.add(f"{path}.dropout1", layer.dropout1, block)
    derivation.add(f"{path}.norm1", layer.norm1, block)
    derivation.add(f"{path}.linear1", layer.linear1, block)
    derivation.add_step(f"{path}.relu", "ReLU", block, derive_relu(None, derivation.shape))
    derivation.add(f"{path}.dropout", layer.dropout, block)
    derivation.add(f"{path}.linear2", layer.linear2, block)
    derivation.add(f"{path}.dropout2", layer.dropout2, block)
    derivation.add(f"{path}.norm2", layer.norm2, block)


def derive_attention(attention: Any, shape: Shape) -> Step:
    """(T, 3 width) -> (T, width): each head h of width d_h gives softmax(Q Kᵀ / √d_h) V of shape (T, d_h)."""
    tokens, widths = shape[0], split_width(attention.width, attention.num_heads)
    heads = " + ".join(map(str, widths))
    joined = f"{heads} = {attention.width}" if len(widths) > 1 else heads
    return Step(
        output_shape=(tokens, attention.width),
        shape_latex=r"\mathrm{softmax}\left(\frac{Q_h K_h^{\top}}{\sqrt{d_h}}\right) V_h : "
        rf"({tokens} \times {tokens}) \cdot ({tokens} \times d_h) = {tokens} \times d_h,"
        rf" \quad \sum_h d_h = {joined}",
        explanation=f"Queries, keys and values of width {attention.width}, "
        + (f"split over {len(widths)} heads" if len(widths) > 1 else "in one head")
        + "; attention itself has nothing to learn.",
    )


def derive_cls_output(derivation: Derivation) -> None:
    _, width = derivation.shape
    step = Step((width,), rf"{tex_shape(derivation.shape)} \to {width}", "Only the CLS token's output goes on.")
    derivation.add_step("cls_output", "CLS output", "Output layer", step)


def count(number: int, noun: str) -> str:
    """``1 channel``, ``64 channels``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# -------------------------------------------------------------------------------------------------- tables and totals


def layer_table(layers: Sequence[LayerDerivation]) -> pd.DataFrame:
    """The model's table: columns ``layer``, ``type``, ``output shape`` (text) and ``parameters`` (int)."""
    return pd.DataFrame(
        {
            "layer": [layer.name for layer in layers],
            "type": [layer.kind for layer in layers],
            "output shape": [text_shape(layer.output_shape) for layer in layers],
            "parameters": [layer.parameters for layer in layers],
        }
    )


def model_totals(layers: Sequence[LayerDerivation]) -> ModelTotals:
    """Sums as torchsummary takes them, for one window in float32.

    Forward and backward count the output of every listed layer twice, once as value and once as gradient, unless it
    lies in the memory of the layer before.
    """
    parameters = sum(layer.parameters for layer in layers)
    outputs = sum(math.prod(layer.output_shape) for layer in layers if not layer.in_place)
    return ModelTotals(
        parameters=parameters,
        trainable_parameters=parameters,  # no layer of either architecture is frozen
        input_mb=math.prod(layers[0].input_shape) * BYTES_PER_NUMBER / BYTES_PER_MB,
        forward_backward_mb=2 * outputs * BYTES_PER_NUMBER / BYTES_PER_MB,
        parameters_mb=parameters * BYTES_PER_NUMBER / BYTES_PER_MB,
    )


def totals_table(totals: ModelTotals) -> pd.DataFrame:
    """``totals`` as text, columns ``quantity`` and ``value``."""
    rows = {
        "Parameters": f"{totals.parameters:,}",
        "Trainable parameters": f"{totals.trainable_parameters:,}",
        "Non-trainable parameters": f"{totals.parameters - totals.trainable_parameters:,}",
        "Input size (MB)": f"{totals.input_mb:.2f}",
        "Forward and backward pass (MB)": f"{totals.forward_backward_mb:.2f}",
        "Parameters size (MB)": f"{totals.parameters_mb:.2f}",
        "Estimated total size (MB)": f"{totals.total_mb:.2f}",
    }
    return pd.DataFrame({"quantity": list(rows), "value": list(rows.values())})


def head_table(width: int = 250, num_heads: int = 4) -> pd.DataFrame:
    """The attention heads of one layer: columns ``head``, ``width``, ``features`` (first–last) and ``scale``."""
    widths = split_width(width, num_heads)
    ends = [sum(widths[: head + 1]) for head in range(num_heads)]
    return pd.DataFrame(
        {
            "head": range(1, num_heads + 1),
            "width": widths,
            "features": [f"{end - d + 1}–{end}" for end, d in zip(ends, widths, strict=True)],
            "scale": [d**-0.5 for d in widths],
        }
    )


def receptive_field_steps(model: Any) -> list[ReceptiveFieldStep]:
    """Grow the receptive field through the base: field += (kernel - 1) jump; jump *= stride."""
    steps, field, jump = [], 1, 1
    for name, layer in model.base.named_children():
        if not hasattr(layer, "kernel_size"):
            continue
        kernel, stride = only(layer.kernel_size), only(layer.stride)
        field, jump = field + (kernel - 1) * jump, jump * stride
        steps.append(ReceptiveFieldStep(name, kernel, stride, field, jump))
    return steps


def receptive_field(model: Any) -> int:
    """Samples of the input that one element of the base's output depends on: 97, about 6 ms at 16 kHz."""
    return receptive_field_steps(model)[-1].field


# ----------------------------------------------------------------------------------------------------------- Markdown


def derivation_markdown(layers: Sequence[LayerDerivation], heading_level: int = 4) -> str:
    """The whole derivation as Markdown with display formulas, a section per block and the sum at the end.

    A block that repeats the one before it is named and not written out. Only LaTeX that MathJax, pandoc's Typst
    writer and XeLaTeX all understand is used.
    """
    heading = "#" * heading_level
    blocks = [(name, list(group)) for name, group in groupby(layers, key=lambda layer: layer.block)]
    parts = [NOTATION]
    for index, (name, block) in enumerate(blocks):
        parts.append(f"{heading} {name}")
        if index and signature(block) == signature(blocks[index - 1][1]):
            total = sum(layer.parameters for layer in block)
            parts.append(f"The same as {blocks[index - 1][0].lower()}, step by step: ${tex_number(total)}$ parameters.")
            continue
        parts += map(layer_markdown, block)
        if sum(layer.parameters > 0 for layer in block) > 1:
            parts.append(sum_markdown(f"Parameters of {name.lower()}:", (layer.parameters for layer in block)))
    parts.append(f"{heading} All parameters")
    block_sums = (sum(layer.parameters for layer in block) for _, block in blocks)
    parts.append(sum_markdown("The sum over the blocks:", block_sums))
    return "\n\n".join(parts) + "\n"


def signature(block: Iterable[LayerDerivation]) -> list[tuple[str, Shape, str]]:
    """What makes two blocks alike."""
    return [(layer.kind, layer.input_shape, layer.parameters_latex) for layer in block]


def layer_markdown(layer: LayerDerivation) -> str:
    """One layer: its shapes, its sentence, and the formulas that say more than "unchanged" and "none"."""
    changes = layer.output_shape != layer.input_shape
    before, after = (
        text_shape(shape).replace(" ", NO_BREAK_SPACE) for shape in (layer.input_shape, layer.output_shape)
    )
    shapes = rf"{before} $\to$ {after}" if changes else f"{after}, unchanged"
    parts = [f"**{layer.name}** ({layer.kind}): {shapes}. {layer.explanation}"]
    if "=" in layer.shape_latex:
        parts.append(f"$$ {layer.shape_latex} $$")
    if layer.parameters:
        parts.append(f"$$ {layer.parameters_latex} $$")
    return "\n\n".join(parts)


def sum_markdown(sentence: str, values: Iterable[int]) -> str:
    return f"{sentence}\n\n$$ P = {tex_sum([value for value in values if value])} $$"
