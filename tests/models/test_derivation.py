"""Every derived shape and count is what torch says, layer by layer; the sums are those of the original report."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from audioclf_lib.models import CNN, ConvTransformer, create_model, head_widths
from audioclf_lib.models.derivation import (
    LayerDerivation,
    derivation_markdown,
    derive_layers,
    head_table,
    layer_table,
    model_totals,
    output_length,
    receptive_field,
    receptive_field_steps,
    split_width,
    totals_table,
)

# Steps that are no module of their own, and what they give.
FUNCTIONAL_STEPS = ("cls_token", "cls_output", "attention", "relu")

ARCHITECTURES = [("cnn", None), ("transformer", 1), ("transformer", 2), ("transformer", 4)]
every_architecture = pytest.mark.parametrize(("name", "num_heads"), ARCHITECTURES)


@cache
def cnn_layers() -> list[LayerDerivation]:
    return derive_layers(create_model("cnn"))


@cache
def transformer_layers(num_heads: int = 4) -> list[LayerDerivation]:
    return derive_layers(create_model("transformer", num_heads=num_heads))


def torch_layers(model: nn.Module) -> dict[str, tuple[tuple[int, ...], int]]:
    """Output shape (without batch) and parameter count of every leaf module, in the order torch calls them."""
    seen: dict[str, tuple[tuple[int, ...], int]] = {}

    def record(name: str):
        def hook(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            seen[name] = (tuple(output.shape[1:]), sum(p.numel() for p in module.parameters()))

        return hook

    for name, module in model.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(record(name.removeprefix("base.")))
    with torch.no_grad():
        model.eval()(torch.zeros(2, 1, 16000))
    return seen


@every_architecture
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("num_classes", [10, 3])
def test_every_layer_is_what_torch_says_in_the_order_torch_calls_it(name, num_heads, activation, num_classes):
    model = create_model(name, num_heads=num_heads, num_classes=num_classes, activation=activation)
    modules = [layer for layer in derive_layers(model) if layer.name.split(".")[-1] not in FUNCTIONAL_STEPS]

    assert {layer.name: (layer.output_shape, layer.parameters) for layer in modules} == torch_layers(model)
    assert [layer.name for layer in modules] == list(torch_layers(model))


@every_architecture
def test_no_parameter_of_the_model_is_left_out(name, num_heads):
    model = create_model(name, num_heads=num_heads)
    assert sum(layer.parameters for layer in derive_layers(model)) == sum(p.numel() for p in model.parameters())


@every_architecture
def test_each_step_receives_what_the_one_before_gives(name, num_heads):
    layers = derive_layers(create_model(name, num_heads=num_heads))
    assert layers[0].input_shape == (1, 16000)
    assert layers[-1].output_shape == (10,)
    assert [layer.output_shape for layer in layers[:-1]] == [layer.input_shape for layer in layers[1:]]


def test_the_steps_that_are_no_modules_have_the_shapes_of_the_forward_pass():
    model = create_model("transformer", num_heads=4).eval()
    shapes = {layer.name: layer.output_shape for layer in transformer_layers()}
    with torch.no_grad():
        tokens = model.tokens(torch.zeros(2, 1, 16000))
        attention = model.encoder[0].attention
        query, _, value = attention.project(tokens)
    assert shapes["cls_token"] == tokens.shape[1:]
    assert shapes["encoder.0.attention"] == attention.merge_heads(value).shape[1:]
    assert shapes["encoder.0.relu"] == shapes["encoder.0.linear1"]
    assert shapes["cls_output"] == model.encoder(tokens)[:, 0].shape[1:]
    assert query.shape[1] == 4


def test_steps_without_a_module_have_no_parameters():
    assert not any(layer.parameters for layer in transformer_layers() if layer.name.split(".")[-1] in FUNCTIONAL_STEPS)


def test_the_cnn_table_is_the_originals():
    table = layer_table(cnn_layers())
    assert list(table.columns) == ["layer", "type", "output shape", "parameters"]
    assert table["parameters"].tolist() == [1024, 256, 0, 0, 41024, 128, 0, 0, 6176, 64, 0, 0, 80010]
    blocks = ["Conv1d", "BatchNorm1d", "Dropout", "MaxPool1d"] * 2
    assert table["type"].tolist() == [*blocks, "Conv1d", "BatchNorm1d", "Dropout", "AvgPool1d", "Linear"]
    assert table["output shape"].tolist()[-2:] == ["(32, 250)", "(10)"]


def test_the_cnn_totals_are_the_originals():
    totals = model_totals(cnn_layers())
    assert totals.parameters == totals.trainable_parameters == 128_682
    sizes = (totals.input_mb, totals.forward_backward_mb, totals.parameters_mb, totals.total_mb)
    assert [f"{size:.2f}" for size in sizes] == ["0.06", "31.19", "0.49", "31.74"]
    assert totals_table(totals)["value"].tolist() == ["128,682", "128,682", "0", "0.06", "31.19", "0.49", "31.74"]


def test_a_relu_in_place_takes_no_memory_of_its_own():
    with_relu = derive_layers(create_model("cnn", activation="relu"))
    assert [layer.name for layer in with_relu if layer.in_place] == ["activation1", "activation2", "activation3"]
    assert model_totals(with_relu) == model_totals(cnn_layers())


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_the_transformer_totals_do_not_depend_on_the_head_count(num_heads):
    assert model_totals(transformer_layers(num_heads)).parameters == 2_607_778
    assert model_totals(transformer_layers(num_heads)) == model_totals(transformer_layers(1))


def test_the_first_length_is_derived_with_an_exact_floor():
    assert cnn_layers()[0].shape_latex == (
        r"L_{\mathrm{out}} = \left\lfloor \frac{\text{16,000} + 2 \cdot 3 - 7}{2} \right\rfloor + 1"
        r" = \lfloor \text{7,999.5} \rfloor + 1 = \text{8,000}"
    )


def python_of(latex: str) -> str:
    """The arithmetic of a formula, readable by Python."""
    text = re.sub(r"\\text\{([\d,.]+)\}", lambda match: match[1].replace(",", ""), latex)
    text = re.sub(r"\\left\\lfloor \\frac\{(.+?)\}\{(\d+)\} \\right\\rfloor", r"((\1) // \2)", text)
    text = re.sub(r"\\lfloor (\S+) \\rfloor", r"int(\1)", text)
    return text.replace(r"\cdot", "*").replace(r"\times", "*")


@every_architecture
def test_the_printed_arithmetic_is_true(name, num_heads):
    for layer in derive_layers(create_model(name, num_heads=num_heads)):
        sides = [eval(side) for side in python_of(layer.parameters_latex).split("=")[1:]]
        assert sides == [layer.parameters] * len(sides), layer.name
        if layer.kind in ("Conv1d", "MaxPool1d", "AvgPool1d"):
            lengths = [eval(side) for side in python_of(layer.shape_latex).split("=")[1:]]
            assert lengths == [layer.output_shape[1]] * 3, layer.name


@given(length=st.integers(20, 200), kernel=st.integers(1, 9), stride=st.integers(1, 5), padding=st.integers(0, 4))
def test_the_length_formula_holds_for_any_convolution(length, kernel, stride, padding):
    layer = nn.Conv1d(1, 1, kernel, stride=stride, padding=padding)
    assert output_length(length, kernel, stride, padding) == layer(torch.zeros(1, 1, length)).shape[2]


def test_other_window_lengths_follow_the_same_formulas():
    model = create_model("cnn")
    shapes = [layer.output_shape for layer in derive_layers(model, (1, 12345)) if layer.name == "pool3"]
    assert shapes == [tuple(model.base(torch.zeros(2, 1, 12345)).shape[1:])]


def test_a_layer_without_a_formula_is_named():
    model = create_model("cnn")
    model.classifier = nn.Bilinear(2, 2, 2)
    with pytest.raises(ValueError, match="classifier is a Bilinear"):
        derive_layers(model)


@pytest.mark.parametrize(("num_heads", "widths"), [(1, [250]), (2, [125, 125]), (4, [63, 63, 62, 62])])
def test_head_widths_add_up_and_are_those_of_the_model(num_heads, widths):
    table = head_table(250, num_heads)
    assert table["width"].tolist() == widths == head_widths(250, num_heads)
    assert table["features"].iloc[-1].endswith("–250")
    model = ConvTransformer(num_heads=num_heads)
    scales = model.encoder[0].attention.query_scale
    assert torch.tensor([s for s, d in zip(table["scale"], widths, strict=True) for _ in range(d)]).allclose(scales)


@given(width=st.integers(1, 300), num_heads=st.integers(1, 20))
def test_split_width_is_even_and_complete(width, num_heads):
    widths = split_width(width, num_heads)
    assert sum(widths) == width
    assert max(widths) - min(widths) <= 1


def test_the_receptive_field_is_measured_to_be_97_samples():
    base = CNN().base.eval()
    x = torch.zeros(400, 1, 960)
    x[torch.arange(400), 0, 300 + torch.arange(400)] = torch.nan  # one poisoned sample per row of the batch
    with torch.no_grad():
        reached = base(x)[:, 0, 7].isnan()  # the rows whose poison reaches one output element
    assert receptive_field(create_model("cnn")) == int(reached.sum()) == 97


def test_the_receptive_field_grows_layer_by_layer():
    steps = receptive_field_steps(create_model("transformer", num_heads=2))
    assert [step.field for step in steps] == [7, 9, 25, 33, 65, 97]
    assert [step.jump for step in steps] == [2, 4, 8, 16, 32, 64]


def test_markdown_has_a_heading_per_block_and_ends_with_the_sum():
    text = derivation_markdown(transformer_layers(), heading_level=3)
    headings = re.findall(r"^### (.+)$", text, flags=re.MULTILINE)
    assert headings == [
        "Convolution block 1",
        "Convolution block 2",
        "Convolution block 3",
        "Tokens",
        "Encoder layer 1",
        "Encoder layer 2",
        "Output layer",
        "All parameters",
    ]
    assert text.rstrip().endswith(r"= \text{2,607,778} $$")
    assert "The same as encoder layer 1" in text


@every_architecture
def test_markdown_uses_only_latex_that_every_exporter_knows(name, num_heads):
    text = derivation_markdown(derive_layers(create_model(name, num_heads=num_heads)))
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    known = "left right lfloor rfloor frac cdot times mathrm text to sqrt top sum quad"
    assert commands <= set(known.split())
    assert text.count("$") % 2 == 0
    assert text.count("{") == text.count("}")


def test_the_originals_slips_are_put_right():
    layers = {layer.name: layer for layer in cnn_layers()}
    assert r"2 \cdot 2 - 5" in layers["conv2"].shape_latex  # padding 2, not 3
    assert not any(r"\approx" in layer.shape_latex for layer in layers.values())
    assert "scaled and shifted" in layers["batch_norm1"].explanation
    assert (layers["pool3"].kind, layers["pool3"].explanation[:8]) == ("AvgPool1d", "The mean")


def test_the_formulas_need_no_torch():
    code = "import sys; sys.modules['torch'] = None; import audioclf_lib.models.derivation"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
