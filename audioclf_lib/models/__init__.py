"""The two architectures: a 1-D CNN, and the same convolutions in front of a Transformer encoder with a CLS token.

Read from the top: convolutional base, CNN, attention, encoder layer, ConvTransformer, ``create_model``.
Shapes are written behind the lines: B windows, 250 = token width, 33 = 32 tokens and CLS.
This is the only place where the architectures are defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audioclf_lib.config import ACTIVATIONS, MODELS, Activation, ModelName

ENCODER_LAYERS = 2
FEED_FORWARD_WIDTH = 2048
ENCODER_DROPOUT = 0.1


def make_activation(name: Activation) -> nn.Module:
    """The recipe's activation behind each batch norm: nothing (as in the original report) or ReLU, in place."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; choose one of {', '.join(ACTIVATIONS)}")
    return nn.ReLU(inplace=True) if name == "relu" else nn.Identity()


class ConvBase(nn.Module):
    """Three blocks of convolution, batch norm, (activation,) dropout and pooling: (B, 1, 16000) -> (B, 32, 250).

    Args:
        dropout: probability that an element is zeroed in training.
        activation: ``"none"`` or ``"relu"``, behind each batch norm.
    """

    def __init__(self, dropout: float = 0.5, activation: Activation = "none") -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 128, kernel_size=7, stride=2, padding=3)
        self.batch_norm1 = nn.BatchNorm1d(128)
        self.activation1 = make_activation(activation)
        self.dropout1 = nn.Dropout(dropout)
        self.pool1 = nn.MaxPool1d(kernel_size=2, stride=2)

        self.conv2 = nn.Conv1d(128, 64, kernel_size=5, stride=2, padding=2)
        self.batch_norm2 = nn.BatchNorm1d(64)
        self.activation2 = make_activation(activation)
        self.dropout2 = nn.Dropout(dropout)
        self.pool2 = nn.MaxPool1d(kernel_size=2, stride=2)

        self.conv3 = nn.Conv1d(64, 32, kernel_size=3, stride=2, padding=1)
        self.batch_norm3 = nn.BatchNorm1d(32)
        self.activation3 = make_activation(activation)
        self.dropout3 = nn.Dropout(dropout)
        self.pool3 = nn.AvgPool1d(kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 16000)
        x = self.conv1(x)  # (B, 128, 8000)
        x = self.pool1(self.dropout1(self.activation1(self.batch_norm1(x))))  # (B, 128, 4000)
        x = self.conv2(x)  # (B, 64, 2000)
        x = self.pool2(self.dropout2(self.activation2(self.batch_norm2(x))))  # (B, 64, 1000)
        x = self.conv3(x)  # (B, 32, 500)
        features: Tensor = self.pool3(self.dropout3(self.activation3(self.batch_norm3(x))))  # (B, 32, 250)
        return features


class CNN(nn.Module):
    """Architecture 1: the convolutional base and one linear layer; 128,682 parameters for ten classes.

    Args:
        num_classes: outputs of the last layer.
        dropout, activation: see :class:`ConvBase`.
    """

    FEATURES = (32, 250)  # channels and time steps that the last layer reads

    def __init__(self, num_classes: int = 10, dropout: float = 0.5, activation: Activation = "none") -> None:
        super().__init__()
        self.base = ConvBase(dropout, activation)
        self.classifier = nn.Linear(math.prod(self.FEATURES), num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 16000)
        x = self.base(x)  # (B, 32, 250)
        logits: Tensor = self.classifier(x.flatten(1))  # (B, classes)
        return logits


def head_widths(width: int, num_heads: int) -> list[int]:
    """Split a token's width over the heads as evenly as it goes: 250 over 4 heads is 63, 63, 62, 62."""
    narrow, wider_heads = divmod(width, num_heads)
    return [narrow + 1] * wider_heads + [narrow] * (num_heads - wider_heads)


class MultiHeadSelfAttention(nn.Module):
    """Multi-head self-attention, written from the projections up (Vaswani et al. 2017, section 3.2).

    For each head of width d:  softmax(Q Kᵀ / √d) V;  the heads' outputs, side by side, pass the output projection.
    A width that the head count does not divide gives heads of unequal width, each scaled by its own. To let
    ``scaled_dot_product_attention`` do all heads at once, queries are scaled beforehand and heads are padded with
    zeros to a common width: zeros add nothing to Q Kᵀ, and give zero columns of V, which are cut off again.

    Args:
        width: of a token.
        num_heads: 1 or more, at most ``width``.
        dropout: probability that an attention weight is zeroed in training.

    Raises:
        ValueError: ``num_heads`` is not possible for this width.
    """

    slots: Tensor  # where each feature lies among the padded heads
    query_scale: Tensor  # 1/√d of the head that a feature belongs to

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if not 1 <= num_heads <= width:
            raise ValueError(f"num_heads must lie between 1 and the token width {width}, not {num_heads}")
        self.width, self.num_heads, self.dropout = width, num_heads, dropout
        self.in_projection = nn.Linear(width, 3 * width)
        self.out_projection = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_projection.weight)
        nn.init.zeros_(self.in_projection.bias)
        nn.init.zeros_(self.out_projection.bias)

        widths = head_widths(width, num_heads)
        self.head_width = max(widths)
        slots = [head * self.head_width + i for head, d in enumerate(widths) for i in range(d)]
        scales = [d**-0.5 for d in widths for _ in range(d)]
        self.register_buffer("slots", torch.tensor(slots), persistent=False)
        self.register_buffer("query_scale", torch.tensor(scales), persistent=False)

    def extra_repr(self) -> str:
        return f"width={self.width}, num_heads={self.num_heads}, dropout={self.dropout}"

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, width) -> (B, heads, T, head_width), narrower heads padded with zeros."""
        batch, tokens, width = x.shape
        padded_width = self.num_heads * self.head_width
        if padded_width != width:
            x = x.new_zeros(batch, tokens, padded_width).index_copy(2, self.slots, x)
        return x.view(batch, tokens, self.num_heads, self.head_width).transpose(1, 2)

    def merge_heads(self, x: Tensor) -> Tensor:
        """(B, heads, T, head_width) -> (B, T, width), the padding cut off."""
        x = x.transpose(1, 2).flatten(2)
        return x if x.shape[2] == self.width else x.index_select(2, self.slots)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (scaled), keys and values of all heads, each (B, heads, T, head_width)."""
        query, key, value = self.in_projection(x).chunk(3, dim=2)  # each (B, T, width)
        return self.split_heads(query * self.query_scale), self.split_heads(key), self.split_heads(value)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, width)
        query, key, value = self.project(x)
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)
        output: Tensor = self.out_projection(self.merge_heads(heads))  # (B, T, width)
        return output

    def attention_weights(self, x: Tensor) -> Tensor:
        """The weights softmax(Q Kᵀ / √d), for plots: (B, T, width) -> (B, heads, T, T), rows summing to 1."""
        query, key, _ = self.project(x)
        return (query @ key.transpose(2, 3)).softmax(dim=3)


class EncoderLayer(nn.Module):
    """One post-norm Transformer encoder layer (Vaswani et al. 2017, section 3.1).

    x = norm1(x + dropout(attention(x)));  x = norm2(x + dropout(linear2(dropout(relu(linear1(x))))))
    """

    def __init__(self, width: int, num_heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadSelfAttention(width, num_heads, dropout)
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.dropout1 = nn.Dropout(dropout)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, width)
        x = self.norm1(x + self.dropout1(self.attention(x)))
        hidden = self.dropout(F.relu(self.linear1(x)))  # (B, T, feed_forward)
        output: Tensor = self.norm2(x + self.dropout2(self.linear2(hidden)))
        return output


class ConvTransformer(nn.Module):
    """Architecture 2: the convolutional base, its 32 channels as tokens of width 250, CLS, two encoder layers.

    2,607,778 parameters for ten classes, whatever the head count. CLS is a token of zeros and no parameter: through
    the query bias it still learns what to ask of the other tokens.

    Args:
        num_heads: attention heads per layer: 1, 2 or 4 in the assignment.
        num_classes: outputs of the last layer.
        dropout, activation: of the convolutional base, see :class:`ConvBase`; the encoder's dropout is 0.1.
    """

    def __init__(
        self, num_heads: int = 1, num_classes: int = 10, dropout: float = 0.5, activation: Activation = "none"
    ) -> None:
        super().__init__()
        self.base = ConvBase(dropout, activation)
        self.encoder = nn.Sequential(
            *(EncoderLayer(250, num_heads, FEED_FORWARD_WIDTH, ENCODER_DROPOUT) for _ in range(ENCODER_LAYERS))
        )
        self.classifier = nn.Linear(250, num_classes)

    def tokens(self, x: Tensor) -> Tensor:
        """What enters the encoder: (B, 1, 16000) -> (B, 33, 250), CLS in front."""
        x = self.base(x)  # (B, 32, 250)
        return F.pad(x, (0, 0, 1, 0))  # (B, 33, 250)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 16000)
        x = self.encoder(self.tokens(x))  # (B, 33, 250)
        logits: Tensor = self.classifier(x[:, 0])  # (B, classes)
        return logits

    @torch.no_grad()
    def attention_weights(self, x: Tensor) -> list[Tensor]:
        """Attention weights of each layer: (B, 1, 16000) -> a (B, heads, 33, 33) per layer."""
        x = self.tokens(x)
        weights = []
        for layer in self.encoder:
            assert isinstance(layer, EncoderLayer)
            weights.append(layer.attention.attention_weights(x))
            x = layer(x)
        return weights


def create_model(
    name: ModelName,
    *,
    num_heads: int | None = None,
    num_classes: int = 10,
    dropout: float = 0.5,
    activation: Activation = "none",
) -> CNN | ConvTransformer:
    """Make a freshly initialised model.

    Args:
        name: ``"cnn"`` or ``"transformer"``.
        num_heads: attention heads of the Transformer (default 1); the CNN takes none.
        num_classes: outputs of the last layer.
        dropout: dropout rate of the convolutional base.
        activation: ``"none"`` or ``"relu"``, behind each batch norm.

    Returns:
        A module that maps (B, 1, 16000) to logits (B, num_classes).

    Raises:
        ValueError: unknown name, impossible head count, or a head count for the CNN.
    """
    makers: dict[str, Callable[[], CNN | ConvTransformer]] = {
        "cnn": lambda: CNN(num_classes, dropout, activation),
        "transformer": lambda: ConvTransformer(1 if num_heads is None else num_heads, num_classes, dropout, activation),
    }
    if name not in makers:
        raise ValueError(f"unknown model {name!r}; choose one of {', '.join(MODELS)}")
    if name == "cnn" and num_heads is not None:
        raise ValueError(f"the CNN has no attention heads; leave num_heads={num_heads} out")
    return makers[name]()
