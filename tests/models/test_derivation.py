"""Every derived shape and count is what torch says, layer by layer, for any model; the sums of the two assigned
architectures are those of the original report."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from audioclf_lib.models import create_model
from audioclf_lib.models.cnn import CNN
from audioclf_lib.models.conv_transformer import ConvTransformer, head_widths
from audioclf_lib.models.derivation import (
    LayerDerivation,
    derivation_markdown,
    derive_layers,
    head_table,
    layer_table,
    model_totals,
    totals_table,
)
from audioclf_lib.models.formulas import FORMULAS, output_length, split_width

# Steps that are no module of their own, and what they give.
FUNCTIONAL_STEPS = ("cls_token", "cls_output", "attention", "relu")

ARCHITECTURES = [("cnn", {}), *(("transformer", {"num_heads": heads}) for heads in (1, 2, 4)), ("mel-cnn", {})]
every_architecture = pytest.mark.parametrize(
    ("name", "settings"), ARCHITECTURES, ids=["cnn", "transformer1", "transformer2", "transformer4", "mel-cnn"]
)
NO_FORMULA = "numbers as PyTorch counts them"


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
        if isinstance(module, MelSpectrogram) or (
            not list(module.children()) and not isinstance(module, nn.Identity) and not name.startswith("mel.")
        ):
            module.register_forward_hook(record(name.removeprefix("base.")))
    with torch.no_grad():
        model.eval()(torch.zeros(2, 1, 16000))
    return seen


@every_architecture
@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("num_classes", [10, 3])
def test_every_layer_is_what_torch_says_in_the_order_torch_calls_it(name, settings, activation, num_classes):
    chosen = settings if name == "mel-cnn" else settings | {"activation": activation}
    model = create_model(name, num_classes=num_classes, **chosen)
    modules = [layer for layer in derive_layers(model) if layer.name.split(".")[-1] not in FUNCTIONAL_STEPS]

    assert {layer.name: (layer.output_shape, layer.parameters) for layer in modules} == torch_layers(model)
    assert [layer.name for layer in modules] == list(torch_layers(model))


@every_architecture
def test_every_layer_is_derived_by_its_formula(name, settings):
    assert not any(NO_FORMULA in layer.explanation for layer in derive_layers(create_model(name, **settings)))


@every_architecture
def test_no_parameter_of_the_model_is_left_out(name, settings):
    model = create_model(name, **settings)
    assert sum(layer.parameters for layer in derive_layers(model)) == sum(p.numel() for p in model.parameters())


@every_architecture
def test_each_step_receives_what_the_one_before_gives(name, settings):
    layers = derive_layers(create_model(name, **settings))
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


def assert_the_arithmetic_is_true(layer: LayerDerivation) -> None:
    """Both sides of every equation that is printed are the layer's numbers."""
    sides = [eval(side) for side in python_of(layer.parameters_latex).split("=")[1:]]
    assert sides == [layer.parameters] * len(sides), layer.name
    if "out" in layer.shape_latex:
        lengths = [
            [eval(side) for side in python_of(axis).split("=")[1:]] for axis in layer.shape_latex.split(r", \quad ")
        ]
        expected = layer.output_shape[-len(lengths) :]
        assert lengths == [[length] * 3 for length in expected], layer.name


@every_architecture
def test_the_printed_arithmetic_is_true(name, settings):
    for layer in derive_layers(create_model(name, **settings)):
        assert_the_arithmetic_is_true(layer)


# ------------------------------------------------------------------------------------------------------ any other layer

WIDE, IMAGE, TOKENS = (6, 50), (6, 20, 31), (9, 12)
LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(6, 4, 5, stride=3, padding=2, dilation=2, groups=2), WIDE),
    (nn.Conv1d(6, 4, 4, padding="same", dilation=3, bias=False), WIDE),
    (nn.Conv1d(6, 4, 7, padding="valid"), WIDE),
    (nn.Conv1d(6, 4, 7, padding=2, padding_mode="reflect"), WIDE),
    (nn.Conv2d(6, 4, (3, 5), stride=(2, 1), padding=(0, 2), groups=2), IMAGE),
    (nn.Conv2d(6, 4, 3, padding="same", dilation=2), IMAGE),
    (nn.BatchNorm1d(6), WIDE),
    (nn.BatchNorm2d(6), IMAGE),
    (nn.LayerNorm(12), TOKENS),
    (nn.LayerNorm(TOKENS), TOKENS),
    (nn.MaxPool1d(3), WIDE),
    (nn.MaxPool1d(3, stride=2, padding=1, dilation=2), WIDE),
    (nn.MaxPool2d((2, 3), stride=2, return_indices=True), IMAGE),
    (nn.AvgPool1d(4, padding=2), WIDE),
    (nn.AvgPool2d(2), IMAGE),
    (nn.AdaptiveAvgPool1d(7), WIDE),
    (nn.AdaptiveMaxPool1d(1), WIDE),
    (nn.AdaptiveAvgPool2d((None, 1)), IMAGE),
    (nn.AdaptiveMaxPool2d(3), IMAGE),
    (nn.Linear(12, 5), TOKENS),
    (nn.Linear(12, 5, bias=False), TOKENS),
    (nn.Dropout(0.3), WIDE),
    (nn.ReLU(), WIDE),
    (nn.Flatten(), IMAGE),
    (MelSpectrogram(16000, n_fft=256, hop_length=100, n_mels=10), (1, 4050)),
    (MelSpectrogram(16000, n_fft=256, hop_length=100, n_mels=10, center=False, pad=30), (1, 4050)),
]
# Without a formula of their own.
KEEP_THE_SHAPE = [
    nn.GELU(),
    nn.SiLU(),
    nn.Tanh(),
    nn.Softmax(dim=1),
    nn.LeakyReLU(),
    nn.Dropout1d(0.3),
    AmplitudeToDB(),
]


def type_name(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=type_name)
def test_the_formula_of_each_kind_of_layer_is_what_torch_says(layer, shape):
    (derived,) = derive_layers(nn.Sequential(layer), shape)
    output = layer.eval()(torch.zeros(1, *shape))
    output = output if isinstance(output, Tensor) else output[0]
    assert NO_FORMULA not in derived.explanation
    assert (derived.input_shape, derived.output_shape) == (shape, tuple(output.shape[1:]))
    assert derived.parameters == sum(parameter.numel() for parameter in layer.parameters())
    assert_the_arithmetic_is_true(derived)


def test_every_formula_is_tested():
    ours = {"MultiHeadSelfAttention", "MultiheadAttention", "cls_token", "cls_output", "relu"}
    assert {type(layer).__name__ for layer, _ in LAYERS} == FORMULAS.keys() - ours


@pytest.mark.parametrize("layer", KEEP_THE_SHAPE, ids=type_name)
def test_what_keeps_the_shape_and_learns_nothing_is_said_to(layer):
    (derived,) = derive_layers(nn.Sequential(layer), WIDE)
    assert (derived.kind, derived.output_shape, derived.parameters) == (type_name(layer), WIDE, 0)
    assert "keeps their shape and has nothing to learn" in derived.explanation


@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    bias=st.booleans(),
)
def test_the_formula_holds_for_any_2d_convolution(kernel, stride, padding, dilation, bias):
    layer = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups=2, bias=bias)
    (derived,) = derive_layers(nn.Sequential(layer), (2, 17, 23))
    assert NO_FORMULA not in derived.explanation
    assert derived.output_shape == tuple(layer(torch.zeros(1, 2, 17, 23)).shape[1:])
    assert_the_arithmetic_is_true(derived)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_torchs_attention_takes_the_same_three_steps_as_ours(batch_first, bias):
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(12, 3, bias=bias, batch_first=batch_first)

        def forward(self, x: Tensor) -> Tensor:
            x = x if batch_first else x.transpose(0, 1)
            return self.attention(x, x, x)[0]

    layers = derive_layers(Attention(), TOKENS)
    assert [layer.kind for layer in layers] == ["Linear", "Self-attention", "Linear"]
    assert [layer.output_shape for layer in layers] == [(9, 36), (9, 12), (9, 12)]
    total = sum(parameter.numel() for parameter in Attention().parameters())
    assert sum(layer.parameters for layer in layers) == total


# ------------------------------------------------------------------------------------------------------ any other model


class Everything(nn.Module):
    """What a model can hold beside layers that are called once, in a row."""

    functional_steps: ClassVar = {"head": "mean over time"}

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.Sequential(), nn.Identity(), nn.ReLU())
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv1d(4, 4, 1), nn.Dropout(0.1)) for _ in range(2)])
        self.recurrent = nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(4, 1))
        self.unused = nn.Linear(2, 2)
        self.head.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x) * self.scale
        for block in self.blocks:
            x = x + block(x)
        x = x + self.blocks[0](x)  # once more
        x, _ = self.recurrent(x.transpose(1, 2))
        return self.head(x.mean(1))


def test_parameters_add_up_whatever_the_model_does_with_them():
    model = Everything()
    layers, total = derive_layers(model, (1, 40)), sum(parameter.numel() for parameter in model.parameters())
    assert sum(layer.parameters for layer in layers) == total
    totals = model_totals(layers)
    assert (totals.parameters, totals.trainable_parameters) == (total, total - 3)
    assert [(layer.name, layer.parameters) for layer in layers if layer.kind == "Parameter"] == [
        ("scale", 4),
        ("unused.weight", 4),
        ("unused.bias", 2),
    ]


def test_a_layer_without_a_formula_is_listed_with_torchs_numbers_and_says_so():
    layers = {layer.name: layer for layer in derive_layers(Everything(), (1, 40))}
    lstm = layers["recurrent"]
    assert lstm.explanation.startswith("No formula is known for LSTM; numbers as PyTorch counts them")
    assert (lstm.output_shape, lstm.parameters) == ((40, 4), 2 * (4 * 4 * 4 + 4 * 4))
    mean = layers["mean over time"]
    assert (mean.kind, mean.input_shape, mean.output_shape) == ("Function", (40, 4), (4,))


def test_a_layer_that_is_called_twice_is_counted_once():
    calls = [layer for layer in derive_layers(Everything(), (1, 40)) if layer.name == "blocks.0.0"]
    assert [layer.parameters for layer in calls] == [20, 0]
    assert NO_FORMULA in calls[1].explanation


def test_layers_are_grouped_by_the_model_s_children():
    blocks = [layer.block for layer in derive_layers(Everything(), (1, 40))]
    assert list(dict.fromkeys(blocks)) == [
        "Features",
        "Blocks 1",
        "Blocks 2",
        "Recurrent",
        "Mean over time",
        "Head",
        "Further parameters",
    ]


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool1d(3, ceil_mode=True),
        nn.LPPool1d(2, 3),
        nn.PixelUnshuffle(2),
        nn.GroupNorm(3, 6),
        nn.LayerNorm(50, bias=False),
        nn.Flatten(2),
    ],
    ids=type_name,
)
def test_a_formula_that_does_not_hold_is_not_printed(layer):
    shape = (1, 40, 40) if isinstance(layer, nn.PixelUnshuffle | nn.Flatten) else (6, 50)
    (derived,) = derive_layers(nn.Sequential(layer), shape)
    assert NO_FORMULA in derived.explanation
    assert derived.output_shape == tuple(layer(torch.zeros(1, *shape)).shape[1:])


def test_a_class_that_only_has_the_name_of_a_layer_is_no_obstacle():
    class Linear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1]

    (derived,) = derive_layers(nn.Sequential(Linear()), (2, 8))
    assert derived.output_shape == (1, 8)


def test_torchs_encoder_layer_is_derived_layer_by_layer():
    model = nn.Sequential(nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 20, batch_first=True), 2))
    layers = derive_layers(model, TOKENS)
    assert sum(layer.parameters for layer in layers) == sum(parameter.numel() for parameter in model.parameters())
    assert [layer.kind for layer in layers if layer.parameters] == 2 * (
        ["Linear", "Linear", "LayerNorm", "Linear", "Linear", "LayerNorm"]
    )
    assert not any(NO_FORMULA in layer.explanation for layer in layers)


def test_deriving_leaves_the_model_as_it_was():
    model = Everything()
    model.blocks[1].eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    derive_layers(model, (1, 40))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@given(length=st.integers(20, 200), kernel=st.integers(1, 9), stride=st.integers(1, 5), padding=st.integers(0, 4))
def test_the_length_formula_holds_for_any_convolution(length, kernel, stride, padding):
    layer = nn.Conv1d(1, 1, kernel, stride=stride, padding=padding)
    assert output_length(length, kernel, stride, padding) == layer(torch.zeros(1, 1, length)).shape[2]


def test_other_window_lengths_follow_the_same_formulas():
    model = create_model("cnn")
    shapes = [layer.output_shape for layer in derive_layers(model.base, (1, 12345)) if layer.name == "pool3"]
    assert shapes == [tuple(model.base(torch.zeros(2, 1, 12345)).shape[1:])]


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
    assert int(reached.sum()) == 97, "as the report's text on the base says"


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


def models_and_layers() -> list[tuple[nn.Module, tuple[int, ...]]]:
    models = [(create_model(name, **settings), (1, 16000)) for name, settings in ARCHITECTURES]
    return [*models, (Everything(), (1, 40)), *((nn.Sequential(layer), shape) for layer, shape in LAYERS)]


def test_markdown_uses_only_latex_that_every_exporter_knows():
    text = "".join(derivation_markdown(derive_layers(model, shape)) for model, shape in models_and_layers())
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


def test_mel_cnn_is_small_and_shown_in_full():
    model = create_model("mel-cnn")
    layers = derive_layers(model)
    assert 50_000 <= model_totals(layers).parameters <= 250_000
    kinds = {layer.kind for layer in layers}
    assert kinds >= {"MelSpectrogram", "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Linear"}
    assert layers[0].output_shape == (1, 64, 51)
    headings = list(dict.fromkeys(layer.block for layer in layers))
    assert headings[:5] == ["Mel", "Block 1", "Block 2", "Block 3", "Block 4"]
    assert "In two dimensions" in derivation_markdown(layers)


def test_mel_cnn_takes_its_settings_and_learns():
    torch.manual_seed(0)
    model = create_model("mel-cnn", num_classes=3, width=8, dropout=0.0)
    labels = torch.arange(6) % 3
    time = torch.arange(16000) / 16000
    tones = torch.stack([torch.sin(2 * torch.pi * 400 * 3 ** int(label) * time) for label in labels])[:, None]
    windows = tones + 0.1 * torch.randn(6, 1, 16000)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(15):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(windows), labels).backward()
        optimizer.step()
    assert model(windows).argmax(1).equal(labels)
    assert model(windows).shape == (6, 3)
