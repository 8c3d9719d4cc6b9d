"""The two architectures on the compiled kernels: the same function of the same parameters as in ``models``.

What differs from the reference modules is the order of work, never the result:

* batch norm 1 is folded into convolution 1, whose outputs' mean and variance follow from those of its input patches,
  so that the (128, 8000) activations are never written;
* batch norm, activation, dropout and pooling are one pass over memory;
* dropout's random numbers come from a hash of the element's number, sixteen at a time;
* convolutions run channels last;
* the last encoder layer computes the CLS token only, since nothing else of it is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audioclf_lib.models.cnn import CNN, ConvBase
from audioclf_lib.models.conv_transformer import ConvTransformer, EncoderLayer, MultiHeadSelfAttention
from audioclf_lib.models.digest import source_digest
from audioclf_lib.training.accelerate import functions as kernels
from audioclf_lib.training.accelerate.functions import drop

# What the kernels compute, by the digest of its source: an architecture whose file is edited runs on its modules.
COMPUTED = {CNN: "f75391c92870df86", ConvTransformer: "0c9e395779621169"}
WINDOW = (1, 16000)
# Attributes of a layer that the kernels take from the model, so that any value is computed; rates, if below 1.
FREE, RATES = {"training", "eps", "momentum", "inplace"}, {"p", "dropout"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_computed(model: nn.Module) -> bool:
    """True if ``model`` is, layer by layer, what the kernels compute.

    Its class is known by its source, and it is compared with a fresh model of its class: kinds of layers, their
    settings and hooks, names, shapes and types of parameters and buffers. Only rates, activations, head count, and
    constants of the norms may differ.
    """
    if type(model) not in COMPUTED:
        return False
    source = Path(inspect.getfile(type(model))).read_text(encoding="utf-8")
    if source_digest(source, type(model).__name__) != COMPUTED[type(model)]:
        return False
    settings = {"num_classes": getattr(model.classifier, "out_features", 1)}
    if type(model) is ConvTransformer:
        settings["num_heads"] = max((getattr(module, "num_heads", 1) for module in model.modules()), default=1)
    with torch.device("meta"):  # shapes without numbers; torch's generator is left as it was
        fresh = type(model)(**settings).float()
    on_cpu = all(tensor.device.type == "cpu" for tensor in [*model.parameters(), *model.buffers()])
    return on_cpu and _description(model) == _description(fresh)


def _description(model: nn.Module) -> list[object]:
    """What must be as in a fresh model; ReLU is described as no activation, since both are computed."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    described: list[object] = [(name, tensor.shape, tensor.dtype) for name, tensor in tensors]
    for path, layer in model.named_modules():
        public = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
        rates_below_one = all(public.pop(name, 0) < 1 for name in RATES)
        settings = {name: value for name, value in public.items() if name not in FREE}
        kind = nn.Identity if type(layer) is nn.ReLU else type(layer)
        described.append((path, kind, settings, rates_below_one, [bool(getattr(layer, hooks)) for hooks in HOOKS]))
    return described


class FastNetwork(nn.Module):
    """Runs a reference model on the compiled kernels.

    Args:
        model: one that :func:`is_computed`. Its parameters and statistics are used and updated; its own ``forward``
            is called only for what the kernels do not take: windows of another length or type, or with a gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        assert isinstance(model, CNN | ConvTransformer)
        self.model = model

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 16000)
        is_plain = x.dtype == torch.float32 and x.device.type == "cpu" and not x.requires_grad
        if not is_plain or len(x) == 0 or x.shape[1:] != WINDOW:
            return self.model(x)  # type: ignore[no-any-return]
        features = run_base(self.model.base, x)  # (B, 32, 250)
        if isinstance(self.model, CNN):
            return self.model.classifier(features.flatten(1))  # type: ignore[no-any-return]
        tokens = F.pad(features, (0, 0, 1, 0))  # (B, 33, 250), CLS in front
        *first, last = self.model.encoder
        for layer in first:
            tokens = run_encoder_layer(layer, tokens, tokens)  # (B, 33, 250)
        cls = run_encoder_layer(last, tokens[:, :1], tokens)  # (B, 1, 250)
        return self.model.classifier(cls[:, 0])  # type: ignore[no-any-return]


def run_base(base: ConvBase, x: Tensor) -> Tensor:
    """The convolutional base: (B, 1, 16000) -> (B, 32, 250)."""
    x = x[:, 0].contiguous()  # (B, 16000)
    y = run_stem(base, x)  # (B, 4000, 128)
    y = run_block(base.conv2, base.batch_norm2, base.activation2, base.dropout2, y, average=False)  # (B, 1000, 64)
    y = run_block(base.conv3, base.batch_norm3, base.activation3, base.dropout3, y, average=True)  # (B, 250, 32)
    return y.transpose(1, 2)


def run_stem(base: ConvBase, x: Tensor) -> Tensor:
    """Convolution 1 to max pool 1, with batch norm 1 folded into the convolution: (B, 16000) -> (B, 4000, 128)."""
    norm, weight, bias = base.batch_norm1, base.conv1.weight[:, 0], base.conv1.bias  # (128, 7), (128,)
    assert bias is not None

    def of_batch() -> tuple[Tensor, Tensor]:
        patch_mean, patch_covariance = kernels.patch_statistics(x)
        wide = weight.double()
        return wide @ patch_mean + bias.double(), ((wide @ patch_covariance) * wide).sum(1).clamp(min=0)

    mean, inverse_std = statistics(norm, of_batch, x.numel() // 2)
    scale = norm.weight.double() * inverse_std
    folded_weight = (weight.double() * scale[:, None]).float().t()
    folded_bias = ((bias.double() - mean) * scale + norm.bias.double()).float()
    has_relu = isinstance(base.activation1, nn.ReLU)
    return kernels.Stem.apply(x, folded_weight, folded_bias, draw(base.dropout1), has_relu)  # type: ignore[no-any-return, no-untyped-call]


def run_block(
    conv: nn.Conv1d, norm: nn.BatchNorm1d, activation: nn.Module, dropout: nn.Dropout, y: Tensor, average: bool
) -> Tensor:
    """Convolution, batch norm, activation, dropout, pool 2: (B, T, C) -> (B, T / 4, C')."""
    z = kernels.Convolution.apply(y, conv.weight, conv.bias)  # type: ignore[no-untyped-call]  # (B, T / 2, C')
    mean, inverse_std = statistics(norm, lambda: kernels.channel_statistics(z.detach()), z.shape[0] * z.shape[1])
    how = (mean, inverse_std, norm.training), draw(dropout), isinstance(activation, nn.ReLU), average
    return kernels.NormPool.apply(z, norm.weight, norm.bias, *how)  # type: ignore[no-any-return, no-untyped-call]


def draw(dropout: nn.Dropout) -> kernels.Dropout:
    return kernels.draw_dropout(dropout.p if dropout.training else 0.0)


def statistics(
    norm: nn.BatchNorm1d, of_batch: Callable[[], tuple[Tensor, Tensor]], count: int
) -> tuple[Tensor, Tensor]:
    """Mean and 1/σ (C,) that a batch norm normalises by, float64.

    In training these are the batch's, whose mean and biased variance ``of_batch`` gives, and the running ones are
    updated as torch does: unbiased variance; a running mean, or a plain one where momentum is None.

    Args:
        count: values of a channel in the batch.
    """
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    if not norm.training:
        return norm.running_mean.double(), (norm.running_var.double() + norm.eps).rsqrt()
    mean, variance = of_batch()
    with torch.no_grad():
        norm.num_batches_tracked += 1
        momentum = norm.momentum if norm.momentum is not None else 1 / int(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean.float(), momentum)
        norm.running_var.lerp_((variance * count / (count - 1)).float(), momentum)
    return mean, (variance + norm.eps).rsqrt()


def run_encoder_layer(layer: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    """One encoder layer for the tokens ``x`` (B, T, width), which attend to ``context`` (B, 33, width)."""
    assert isinstance(layer, EncoderLayer)
    x = layer.norm1(x + drop(run_attention(layer.attention, x, context), draw(layer.dropout1)))
    hidden = drop(F.relu(layer.linear1(x)), draw(layer.dropout))
    return layer.norm2(x + drop(layer.linear2(hidden), draw(layer.dropout2)))  # type: ignore[no-any-return]


def run_attention(attention: MultiHeadSelfAttention, x: Tensor, context: Tensor) -> Tensor:
    """Attention of the tokens ``x`` (B, T, width) to ``context`` (B, 33, width): (B, T, width)."""
    width = attention.width
    weight, bias = attention.in_projection.weight, attention.in_projection.bias
    query = F.linear(x, weight[:width], bias[:width]) * attention.query_scale
    key, value = F.linear(context, weight[width:], bias[width:]).chunk(2, dim=2)
    scores = attention.split_heads(query) @ attention.split_heads(key).transpose(2, 3)  # (B, heads, T, 33)
    rate = attention.dropout if attention.training else 0.0
    heads = drop(scores.softmax(dim=3), kernels.draw_dropout(rate)) @ attention.split_heads(value)
    return attention.out_projection(attention.merge_heads(heads))  # type: ignore[no-any-return]
