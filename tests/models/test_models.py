"""Both architectures: counts, shapes, attention against independent references, gradients, rejected arguments."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from audioclf_lib.models import create_model
from audioclf_lib.models.cnn import CNN
from audioclf_lib.models.conv_transformer import ConvTransformer, EncoderLayer, MultiHeadSelfAttention, head_widths

HEAD_COUNTS = [1, 2, 4]
ARCHITECTURES = [("cnn", {}), *(("transformer", {"num_heads": heads}) for heads in HEAD_COUNTS)]
every_architecture = pytest.mark.parametrize(("name", "settings"), ARCHITECTURES)
every_head_count = pytest.mark.parametrize("num_heads", HEAD_COUNTS)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def waveforms(batch: int = 3) -> Tensor:
    return torch.randn(batch, 1, 16000)


def randomise(module: nn.Module) -> None:
    """Give biases and norms values other than their initial zeros and ones, so that none can be left out unnoticed."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# ------------------------------------------------------------------------------------------------- counts and shapes


def test_the_cnn_has_128682_parameters():
    assert count(create_model("cnn")) == 128_682


@every_head_count
def test_the_transformer_has_2607778_parameters_for_every_head_count(num_heads):
    assert count(create_model("transformer", num_heads=num_heads)) == 2_607_778


@every_architecture
@pytest.mark.parametrize("num_classes", [2, 10, 50])
def test_there_are_as_many_logits_as_classes(name, settings, num_classes):
    model = create_model(name, **settings, num_classes=num_classes).eval()
    assert model(waveforms()).shape == (3, num_classes)


@every_architecture
def test_activation_and_dropout_change_no_parameter(name, settings):
    plain = create_model(name, **settings)
    changed = create_model(name, **settings, dropout=0.1, activation="relu")
    assert changed.state_dict().keys() == plain.state_dict().keys()
    assert [m.p for n, m in changed.base.named_modules() if n.startswith("dropout")] == [0.1] * 3


def test_relu_acts_behind_each_batch_norm():
    base = create_model("cnn", activation="relu").base.eval()
    outputs: list[Tensor] = []
    for pool in (base.pool1, base.pool2, base.pool3):
        pool.register_forward_hook(lambda _module, inputs, _output: outputs.append(inputs[0]))
    base(waveforms())
    assert [bool((x >= 0).all()) for x in outputs] == [True] * 3
    assert all((x == 0).any() for x in outputs)


@every_architecture
def test_the_state_holds_parameters_and_batch_norm_statistics_only(name, settings):
    model = create_model(name, **settings)
    statistics = {
        f"base.batch_norm{i}.{buffer}"
        for i in (1, 2, 3)
        for buffer in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert set(model.state_dict()) == {n for n, _ in model.named_parameters()} | statistics


# --------------------------------------------------------------------------------------------------------- attention


def reference_attention(attention: MultiHeadSelfAttention, x: Tensor, widths: list[int]) -> tuple[Tensor, list[Tensor]]:
    """softmax(Q Kᵀ / √d) V, one head and one sample after the other; and the weights of each head."""
    projected = x @ attention.in_projection.weight.T + attention.in_projection.bias
    query, key, value = projected.split(250, dim=2)
    heads, weights, start = [], [], 0
    for width in widths:
        columns = slice(start, start + width)
        scores = torch.stack(
            [q @ k.T / math.sqrt(width) for q, k in zip(query[..., columns], key[..., columns], strict=True)]
        )
        weights.append(scores.softmax(dim=2))
        heads.append(torch.stack([w @ v for w, v in zip(weights[-1], value[..., columns], strict=True)]))
        start += width
    joined = torch.cat(heads, dim=2)
    return joined @ attention.out_projection.weight.T + attention.out_projection.bias, weights


def torch_attention(attention: MultiHeadSelfAttention) -> nn.MultiheadAttention:
    reference = nn.MultiheadAttention(250, attention.num_heads, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": attention.in_projection.weight,
            "in_proj_bias": attention.in_projection.bias,
            "out_proj.weight": attention.out_projection.weight,
            "out_proj.bias": attention.out_projection.bias,
        }
    )
    return reference.eval()


def make_attention(num_heads: int) -> MultiHeadSelfAttention:
    attention = MultiHeadSelfAttention(250, num_heads).eval()
    randomise(attention)
    return attention


@pytest.mark.parametrize("num_heads", [1, 2, 5])
@torch.no_grad()
def test_attention_is_torchs_where_the_heads_divide_the_width(num_heads):
    attention, x = make_attention(num_heads), torch.randn(3, 33, 250)
    expected, weights = torch_attention(attention)(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention.attention_weights(x), weights, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("num_heads", "widths"), [(1, [250]), (2, [125, 125]), (4, [63, 63, 62, 62]), (3, [84, 83, 83])]
)
@torch.no_grad()
def test_attention_is_that_of_a_loop_over_heads(num_heads, widths):
    attention, x = make_attention(num_heads).double(), torch.randn(3, 33, 250, dtype=torch.float64)
    expected, weights = reference_attention(attention, x, widths)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention.attention_weights(x), torch.stack(weights, dim=1), atol=1e-5, rtol=1e-5)


@every_head_count
@torch.no_grad()
def test_attention_weights_sum_to_one_and_reproduce_the_output(num_heads):
    attention, x = make_attention(num_heads), torch.randn(3, 33, 250)
    weights = attention.attention_weights(x)
    assert weights.shape == (3, num_heads, 33, 33)
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(3, num_heads, 33))
    _, _, value = attention.project(x)
    torch.testing.assert_close(attention.out_projection(attention.merge_heads(weights @ value)), attention(x))


@every_head_count
def test_splitting_and_merging_heads_loses_nothing(num_heads):
    attention, x = make_attention(num_heads), torch.randn(2, 5, 250)
    assert attention.merge_heads(attention.split_heads(x)).equal(x)


@torch.no_grad()
def test_the_same_weights_with_another_head_count_give_another_output():
    models = {heads: create_model("transformer", num_heads=heads).eval() for heads in HEAD_COUNTS}
    x = waveforms()
    for heads in HEAD_COUNTS:
        models[heads].load_state_dict(models[1].state_dict())
    outputs = [models[heads](x) for heads in HEAD_COUNTS]
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        assert (outputs[first] - outputs[second]).abs().max() > 1e-4


@pytest.mark.parametrize("num_heads", [0, -1, 251])
def test_an_impossible_head_count_is_rejected(num_heads):
    with pytest.raises(ValueError, match=f"num_heads = {num_heads} is not possible"):
        create_model("transformer", num_heads=num_heads)


def test_heads_of_unequal_width_add_up():
    assert head_widths(250, 4) == [63, 63, 62, 62]


# ----------------------------------------------------------------------------------------------------- encoder layer


@pytest.mark.parametrize("num_heads", [1, 2])
@torch.no_grad()
def test_an_encoder_layer_is_torchs(num_heads):
    layer = EncoderLayer(250, num_heads, feed_forward=2048, dropout=0.1).eval()
    randomise(layer)
    reference = nn.TransformerEncoderLayer(250, num_heads, 2048, dropout=0.1, batch_first=True, norm_first=False).eval()
    renamed = {
        "attention.in_projection.weight": "self_attn.in_proj_weight",
        "attention.in_projection.bias": "self_attn.in_proj_bias",
        "attention.out_projection.weight": "self_attn.out_proj.weight",
        "attention.out_projection.bias": "self_attn.out_proj.bias",
    }
    reference.load_state_dict({renamed.get(name, name): value for name, value in layer.state_dict().items()})
    x = torch.randn(3, 33, 250)
    torch.testing.assert_close(layer(x), reference(x), atol=1e-4, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------- CLS token


@torch.no_grad()
def test_the_tokens_are_the_bases_channels_behind_a_cls_token_of_zeros():
    model, x = ConvTransformer().eval(), waveforms()
    tokens = model.tokens(x)
    assert tokens.shape == (3, 33, 250)
    assert not tokens[:, 0].any()
    assert tokens[:, 1:].equal(model.base(x))


@every_head_count
@torch.no_grad()
def test_cls_attends_to_the_tokens_as_soon_as_its_query_bias_asks(num_heads):
    model = create_model("transformer", num_heads=num_heads).eval()
    randomise(model)
    first, second = model.attention_weights(waveforms())
    assert first.shape == second.shape == (3, num_heads, 33, 33)
    cls_row = first[:, :, 0]
    torch.testing.assert_close(cls_row.sum(dim=2), torch.ones(3, num_heads))
    assert (cls_row[..., 1:].amax(dim=2) > 1 / 33 + 1e-3).all()  # not the even spread of a query of zeros


@torch.no_grad()
def test_the_classifier_reads_what_cls_gathered_from_the_sound():
    model = ConvTransformer(num_heads=2).eval()
    first, second = model(waveforms(2))
    assert not first.allclose(second)


# --------------------------------------------------------------------------------------------- training and evaluation


def has_no_gradient_by_nature(name: str) -> bool:
    """A batch norm subtracts the bias in front of it."""
    return name.startswith("base.conv") and name.endswith("bias")


@every_architecture
def test_every_weight_gets_a_gradient(name, settings):
    model = create_model(name, **settings, dropout=0.0)
    randomise(model)
    nn.functional.cross_entropy(model(waveforms(8)), torch.arange(8)).backward()
    for parameter_name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, parameter_name
        if parameter_name.endswith("in_projection.bias"):
            query, key, value = gradient.chunk(3)
            assert query.any() and value.any(), parameter_name
            # The same number added to all scores of a row leaves softmax as it is.
            assert key.abs().max() < 1e-4 * value.abs().max(), parameter_name
        elif has_no_gradient_by_nature(parameter_name):
            weight_gradient = model.get_parameter(parameter_name.replace("bias", "weight")).grad
            assert weight_gradient is not None
            assert gradient.abs().max() < 1e-3 * weight_gradient.abs().max(), parameter_name
        else:
            assert gradient.abs().max() > 1e-7, parameter_name


@every_architecture
@torch.no_grad()
def test_a_samples_output_does_not_depend_on_its_batch_mates(name, settings):
    model = create_model(name, **settings).eval()
    randomise(model)
    x = waveforms(4)
    together = model(x)
    alone = torch.cat([model(sample[None]) for sample in x])
    others = model(torch.cat([x[:1], 100 * torch.randn(3, 1, 16000)]))
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together[0], others[0], atol=1e-4, rtol=1e-4)


@every_architecture
@torch.no_grad()
def test_dropout_acts_in_training_only(name, settings):
    model, x = create_model(name, **settings), waveforms(2)
    assert not model.train()(x).equal(model(x))
    assert model.eval()(x).equal(model(x))


@torch.no_grad()
def test_attention_weights_are_dropped_in_training_only():
    attention, x = MultiHeadSelfAttention(250, 2, dropout=0.5), torch.randn(2, 33, 250)
    assert not attention.train()(x).allclose(attention(x))
    assert attention.eval()(x).equal(attention(x))


@every_architecture
def test_the_same_seed_gives_the_same_model(name, settings):
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(create_model(name, **settings).state_dict())
    assert all(states[0][key].equal(states[1][key]) for key in states[0])


def test_two_models_share_no_weight():
    first, second = CNN(), CNN()
    assert not {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}


# ---------------------------------------------------------------------------------------------------- create_model


def test_the_transformer_has_one_head_unless_told_otherwise():
    model = create_model("transformer")
    assert isinstance(model, ConvTransformer)
    assert [layer.attention.num_heads for layer in model.encoder] == [1, 1]


def test_an_unknown_architecture_is_rejected_with_the_known_ones():
    with pytest.raises(ValueError, match="'rnn'; choose one of cnn, transformer"):
        create_model("rnn")  # type: ignore[arg-type]


def test_the_cnn_takes_no_heads():
    with pytest.raises(ValueError, match="model cnn has no setting 'num_heads'"):
        create_model("cnn", num_heads=2)


def test_an_unknown_activation_is_rejected():
    with pytest.raises(ValueError, match="'gelu'; choose one of none, relu"):
        create_model("cnn", activation="gelu")  # type: ignore[arg-type]
