"""Output shapes and parameter counts of any model, step by step, by the formulas of its layers, with their LaTeX.

One forward pass of zeros gives the order of the layers; shapes and counts follow from hyper-parameters by formula and
are compared with what torch counts.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

import pandas as pd

from audioclf_lib.models import formulas
from audioclf_lib.models.formulas import Shape, Step, tex_change, tex_number, text_shape

if TYPE_CHECKING:
    from torch import nn

MB_PER_NUMBER = 4 / 2**20  # float32, and torchsummary's megabyte, which the original report's sizes are given in
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"

# What stands in front of a derivation: the two formulas that all lengths and convolutions follow.
NOTATION = r"""A convolution or pooling with kernel length $k$, stride $s$ and padding $p$ at each end turns a length of
$L_{\mathrm{in}}$ into

$$ L_{\mathrm{out}} = \left\lfloor \frac{L_{\mathrm{in}} + 2 p - k}{s} \right\rfloor + 1 , $$

where $\lfloor x \rfloor$ is the largest integer not above $x$. A convolution from $C_{\mathrm{in}}$ to
$C_{\mathrm{out}}$ channels has

$$ P = k \cdot C_{\mathrm{in}} \cdot C_{\mathrm{out}} + C_{\mathrm{out}} $$

parameters: its weights, and one bias per output channel."""

IN_TWO_DIMENSIONS = """In two dimensions, each axis follows the first formula, and $k$ in the second is the number of
values in a kernel."""

LayerDerivation = Step  # of a model, and so with its place in it

HEADINGS = {"cls_token": "Tokens", "cls_output": "Output layer", "classifier": "Output layer"}


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


# -------------------------------------------------------------------------------------------------------- forward pass


@dataclass(frozen=True)
class Call:
    """A call of a layer in a forward pass; ``layer`` is None for a step that is no module."""

    path: str
    kind: str
    layer: nn.Module | None
    input_shapes: list[Shape]
    output_shape: Shape


def forward_calls(model: nn.Module, input_shape: Shape) -> list[Call]:
    """What happens to one window of zeros, in order: layers with a formula or without parts, and functional steps.

    Args:
        model: a copy, to which hooks are left and which stays in evaluation mode.
        input_shape: of the window.
    """
    import torch

    calls: list[Call] = []

    def shapes(layer: nn.Module, value: Any) -> list[Shape]:
        if isinstance(value, torch.Tensor):
            batch_axis = 0 if getattr(layer, "batch_first", True) else 1
            return [tuple(size for axis, size in enumerate(value.shape) if axis != batch_axis)]
        values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
        return [shape for item in values for shape in shapes(layer, item)]

    def record(path: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if made := shapes(layer, output):
            calls.append(Call(path, type(layer).__name__, layer, shapes(layer, inputs) or [before()], made[0]))

    def record_step(path: str, child: nn.Module, inputs: Any) -> None:
        after = (shapes(child, inputs) or [before()])[0]
        calls.append(Call(path, path.rpartition(".")[2], None, [before()], after))

    def before() -> Shape:
        return calls[-1].output_shape if calls else input_shape

    covered: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if path.startswith(covered):  # a part of a layer whose formula covers it
            continue
        kind = type(module).__name__
        if kind in formulas.FORMULAS:
            covered += (f"{path}.",)
        # A Sequential without children does nothing.
        if kind in formulas.FORMULAS or not (list(module.children()) or kind in ("Identity", "Sequential")):
            module.register_forward_hook(partial(record, path))
        for child, step in getattr(module, "functional_steps", {}).items():
            module.get_submodule(child).register_forward_pre_hook(partial(record_step, f"{path}.{step}".lstrip(".")))
    with torch.no_grad():
        model.eval()(torch.zeros(1, *input_shape).to(next(model.parameters(), torch.zeros(()))))
    return calls


def derive_layers(model: nn.Module, input_shape: Shape = (1, 16000)) -> list[LayerDerivation]:
    """Derive every step of a model's forward pass.

    A layer without a formula, or whose formula does not agree with torch, is listed with torch's numbers and says so.
    What ``forward`` computes without a module is not seen, unless the module that does so names it in an attribute
    ``functional_steps``: name of the child that the step precedes -> name of the step, as ``{"classifier": "mean"}``.

    Args:
        model: any module; its parameters, buffers and modes are left as they are.
        input_shape: (channels, samples) of one window.

    Returns:
        One derivation per step, in forward order, without ``Identity``; then one for every parameter that is no
        layer's, so that the parameters add up to those of the model.
    """
    model = copy.deepcopy(model)
    layers: list[LayerDerivation] = []
    counted: set[nn.Parameter] = set()
    for call in forward_calls(model, input_shape):
        shape, before = call.input_shapes[0], layers[-1].output_shape if layers else input_shape
        if call.kind == "Linear" and shape == (math.prod(before),):
            shape = before  # flattened in forward; the formula says so
        new = set(call.layer.parameters()) - counted if call.layer is not None else set()
        counted |= new
        frozen = sum(parameter.numel() for parameter in new if not parameter.requires_grad)
        for step in derive_call(call, shape, sum(parameter.numel() for parameter in new)):
            path = f"{call.path}.{step.part}".strip(".")
            place: dict[str, Any] = {"name": path.removeprefix("base."), "block": block_heading(path)}
            layers.append(replace(step, **place, input_shape=shape, kind=step.kind or call.kind, frozen=frozen))
            shape, frozen = step.output_shape, 0
    for name, parameter in model.named_parameters():
        if parameter not in counted:
            shape, frozen = tuple(parameter.shape), 0 if parameter.requires_grad else parameter.numel()
            explanation = "Learnt numbers that belong to no layer of this list."
            numbers = parameter.numel(), f"P = {formulas.tex_product(shape)}"
            place = {"name": name.removeprefix("base."), "block": "Further parameters", "input_shape": shape}
            step = Step(shape, tex_change(shape, shape), explanation, *numbers, in_place=True, kind="Parameter")
            layers.append(replace(step, **place, frozen=frozen))
    return layers


def derive_call(call: Call, shape: Shape, new: int) -> list[Step]:
    """The steps of a call by formula where that agrees with torch's shape and number of new parameters."""
    formula, steps = formulas.FORMULAS.get(call.kind), []
    if formula is not None and len(set(call.input_shapes)) == 1:
        with suppress(AttributeError, IndexError, TypeError, ValueError):  # a class of that name, but not torch's
            derived = formula(call.layer, shape)
            steps = derived if isinstance(derived, list) else [derived]
    if steps and steps[-1].output_shape == call.output_shape and sum(step.parameters for step in steps) == new:
        return steps
    if call.layer is not None and call.output_shape == shape and not list(call.layer.parameters()):
        return [formulas.unchanged(formulas.KEEPS.format(call.kind))(call.layer, shape)]
    reason = "The formula does not hold" if steps else "No formula is known"
    explanation = f"{reason} for {call.kind}; numbers as PyTorch counts them, shared parameters once."
    latex, kind = tex_change(shape, call.output_shape), "Function" if call.layer is None else call.kind
    return [Step(call.output_shape, latex, explanation, new, f"P = {tex_number(new)}", kind=kind)]


def block_heading(path: str) -> str:
    """``base.conv1`` -> Convolution block 1, ``encoder.0.linear1`` -> Encoder layer 1, ``features.3`` -> Features."""
    top, *inner = path.split(".")
    if top == "base" and path[-1].isdigit():
        return f"Convolution block {path[-1]}"
    name = HEADINGS.get(path) or re.sub(r"_|(?<=[a-z])(?=\d)", " ", top).capitalize()  # block1: Block 1
    number = next((f" {int(part) + 1}" for part in inner[:-1] if part.isdigit()), "")
    return ("Encoder layer" if top == "encoder" and number else name) + number


# -------------------------------------------------------------------------------------------------- tables and totals


def layer_table(layers: Sequence[LayerDerivation]) -> pd.DataFrame:
    """The model's table: columns ``layer``, ``type``, ``output shape`` (text) and ``parameters`` (int)."""
    rows = [(layer.name, layer.kind, text_shape(layer.output_shape), layer.parameters) for layer in layers]
    return pd.DataFrame(rows, columns=["layer", "type", "output shape", "parameters"])


def model_totals(layers: Sequence[LayerDerivation]) -> ModelTotals:
    """Sums as torchsummary takes them, for one window in float32.

    Forward and backward count the output of every listed layer twice, once as value and once as gradient, unless it
    lies in the memory of the layer before.
    """
    parameters, frozen = (sum(getattr(layer, name) for layer in layers) for name in ("parameters", "frozen"))
    outputs = sum(math.prod(layer.output_shape) for layer in layers if not layer.in_place)
    return ModelTotals(
        parameters=parameters,
        trainable_parameters=parameters - frozen,
        input_mb=math.prod(layers[0].input_shape) * MB_PER_NUMBER,
        forward_backward_mb=2 * outputs * MB_PER_NUMBER,
        parameters_mb=parameters * MB_PER_NUMBER,
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
    widths = formulas.split_width(width, num_heads)
    rows = [
        (head, width, f"{end - width + 1}–{end}", width**-0.5)
        for head, (width, end) in enumerate(zip(widths, accumulate(widths), strict=True), 1)
    ]
    return pd.DataFrame(rows, columns=["head", "width", "features", "scale"])


# ----------------------------------------------------------------------------------------------------------- Markdown


def derivation_markdown(layers: Sequence[LayerDerivation], heading_level: int = 4) -> str:
    """The whole derivation as Markdown with display formulas, a section per block and the sum at the end.

    A block that repeats the one before it is named and not written out. Only LaTeX that MathJax, pandoc's Typst
    writer both understand is used.
    """
    heading = "#" * heading_level
    blocks = [(name, list(group)) for name, group in groupby(layers, key=lambda layer: layer.block)]
    sums = [sum(layer.parameters for layer in block) for _, block in blocks]
    parts = [NOTATION] + ([IN_TWO_DIMENSIONS] if any(layer.kind == "Conv2d" for layer in layers) else [])
    for index, (name, block) in enumerate(blocks):
        parts.append(f"{heading} {name}")
        if index and signature(block) == signature(blocks[index - 1][1]):
            like, total = blocks[index - 1][0].lower(), tex_number(sums[index])
            parts.append(f"The same as {like}, step by step: ${total}$ parameters.")
            continue
        parts += map(layer_markdown, block)
        if sum(layer.parameters > 0 for layer in block) > 1:
            parts.append(sum_markdown(f"Parameters of {name.lower()}:", (layer.parameters for layer in block)))
    parts.append(f"{heading} All parameters")
    parts.append(sum_markdown("The sum over the blocks:", sums))
    return "\n\n".join(parts) + "\n"


def signature(block: Iterable[LayerDerivation]) -> list[tuple[str, Shape, str]]:
    """What makes two blocks alike."""
    return [(layer.kind, layer.input_shape, layer.parameters_latex) for layer in block]


def layer_markdown(layer: LayerDerivation) -> str:
    """One layer: its shapes, its sentence, and the formulas that say more than "unchanged" and "none"."""
    ends = layer.input_shape, layer.output_shape
    before, after = (text_shape(shape).replace(" ", NO_BREAK_SPACE) for shape in ends)
    shapes = rf"{before} $\to$ {after}" if before != after else f"{after}, unchanged"
    parts = [f"**{layer.name}** ({layer.kind}): {shapes}. {layer.explanation}"]
    if "=" in layer.shape_latex:
        parts.append(f"$$ {layer.shape_latex} $$")
    if layer.parameters:
        parts.append(f"$$ {layer.parameters_latex} $$")
    return "\n\n".join(parts)


def sum_markdown(sentence: str, values: Iterable[int]) -> str:
    terms = [value for value in values if value]
    return f"{sentence}\n\n$$ P = {' + '.join(map(tex_number, terms))} = {tex_number(sum(terms))} $$"
