"""Architecture 2: the convolutional base of Architecture 1 in front of a Transformer encoder with a CLS token.

Read from the top: attention, encoder layer, ConvTransformer. Shapes are written behind the lines: B windows, 250 is a
token's width, 33 = 32 tokens and CLS.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from audioclf_lib.models.cnn import Activation, ConvBase

TOKEN_WIDTH = 250
ENCODER_LAYERS = 2
FEED_FORWARD_WIDTH = 2048
ENCODER_DROPOUT = 0.1


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

    functional_steps: ClassVar = {"dropout": "relu"}  # steps of forward that are no modules, by what they precede

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
        num_classes: outputs of the last layer.
        num_heads: attention heads per layer: 1, 2 or 4 in the assignment.
        dropout, activation: of the convolutional base, see :class:`ConvBase`; the encoder's dropout is 0.1.
    """

    functional_steps: ClassVar = {"encoder": "cls_token", "classifier": "cls_output"}

    def __init__(
        self,
        num_classes: int = 10,
        num_heads: Annotated[int, Field(ge=1, le=TOKEN_WIDTH)] = 1,
        dropout: float = 0.5,
        activation: Activation = "none",
    ) -> None:
        super().__init__()
        self.base = ConvBase(dropout, activation)
        self.encoder = nn.Sequential(
            *(EncoderLayer(TOKEN_WIDTH, num_heads, FEED_FORWARD_WIDTH, ENCODER_DROPOUT) for _ in range(ENCODER_LAYERS))
        )
        self.classifier = nn.Linear(TOKEN_WIDTH, num_classes)

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

    def parameter_groups(self, encoder_lr_scale: float) -> list[dict[str, Any]]:
        """Parameters for the optimizer: the encoder bears a smaller learning rate than the convolutional base."""
        encoder = list(self.encoder.parameters())
        others = [*self.base.parameters(), *self.classifier.parameters()]
        return [{"params": others, "lr_scale": 1.0}, {"params": encoder, "lr_scale": encoder_lr_scale}]
