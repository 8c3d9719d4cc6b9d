"""Inside a training: a fit's weights scored with other batch-norm statistics, and a Transformer's first steps."""

from __future__ import annotations

import copy
import math

import pandas as pd
import torch
from torch import Tensor, nn

from audioclf_lib.config import FitConfig
from audioclf_lib.data import Dataset
from audioclf_lib.models.conv_transformer import ConvTransformer, EncoderLayer
from audioclf_lib.runs.store import Run
from audioclf_lib.training.accelerate import accelerate
from audioclf_lib.training.batches import Windows, normalise
from audioclf_lib.training.environment import REFERENCE
from audioclf_lib.training.epochs import reestimate_statistics, score_windows, train_epoch
from audioclf_lib.training.optimisation import make_optimizer
from audioclf_lib.training.trainer import epoch_seed, fresh_model, torch_threads, training_windows, windows_by_split

REESTIMATE_WINDOWS = 512
TRACE_EPOCHS = 2
PROBES_PER_EPOCH = 8
PROBE_WINDOWS = 32


def rescore(run: Run, dataset: Dataset, device: torch.device) -> pd.DataFrame:
    """Score a fit's kept weights after its batch-norm statistics were re-estimated without dropout.

    Returns:
        A row for ``validation`` and one for ``test`` with the columns loss, accuracy and clip_accuracy.
    """
    config = run.config
    model = fresh_model(config, device)
    model.load_state_dict(run.weights())
    network = accelerate(model, device)
    windows = windows_by_split(config, dataset, device)
    _reestimate(model, network, training_windows(config, windows["train"]), config, REESTIMATE_WINDOWS)
    rows = {}
    for split in ("validation", "test"):
        scored = score_windows(network, windows[split], config.recipe_settings, len(config.class_names))
        rows[split] = {name.removeprefix("new_"): value for name, value in scored.scores("new").items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")


def _reestimate(model: nn.Module, network: nn.Module, training: Windows, config: FitConfig, n_windows: int) -> None:
    recipe = config.recipe_settings.model_copy(update={"reestimate_windows": n_windows})
    reestimate_statistics(model, network, training, recipe, config.seed)


def trace_fit(run: Run, dataset: Dataset, device: torch.device, epochs: int = TRACE_EPOCHS) -> pd.DataFrame:
    """Repeat the first epochs of a Transformer's fit with the same random numbers and record what happens inside.

    The numbers are the fit's own where it was trained on this machine.

    Args:
        run: a finished fit of the Transformer.
        epochs: how many, or as many as the fit has.

    Returns:
        A row per step: epoch (from 1), step (from 1, over all epochs), windows, loss, and the gradient's norm before
        clipping by part of the model: gradient_base, gradient_layer1, gradient_layer2, gradient_classifier. In up to
        ``PROBES_PER_EPOCH`` steps of an epoch, :func:`probe` of the weights before the step; NaN in the others.
    """
    config = run.config
    recipe, n_classes = config.recipe_settings, len(config.class_names)
    model = fresh_model(config, device)
    assert isinstance(model, ConvTransformer)
    optimizer = make_optimizer(model, recipe)
    network = model if run.environment.get("path") == REFERENCE else accelerate(model, device)
    training = training_windows(config, windows_by_split(config, dataset, device)["train"])
    steps = math.ceil(len(training) / recipe.batch_size)  # of an epoch
    rows: list[dict[str, float]] = []

    def record(loss: Tensor) -> None:
        """Note a row; computes on copies only, and draws no random number of the training's."""
        epoch, step = divmod(len(rows), steps)
        row: dict[str, float] = {"epoch": epoch + 1, "step": len(rows) + 1}
        row["windows"] = min(recipe.batch_size, len(training) - step * recipe.batch_size)
        row |= {"loss": loss.item()} | gradient_norms(model)
        if step % math.ceil(steps / PROBES_PER_EPOCH) == 0:
            twin = copy.deepcopy(model)
            _reestimate(twin, accelerate(twin, device), training, config, PROBE_WINDOWS)
            heard = training.subset(~training.is_silent)
            chosen = torch.linspace(0, len(heard) - 1, min(PROBE_WINDOWS, len(heard))).long()
            row |= probe(twin, normalise(heard.cut(chosen)[0], recipe))
        rows.append(row)

    with torch_threads(config.threads):
        for epoch in range(min(epochs, config.epochs)):
            torch.manual_seed(epoch_seed(config.seed, epoch))
            train_epoch(model, network, optimizer, training, recipe, n_classes, epoch, config.epochs, observe=record)
    return pd.DataFrame(rows)


def gradient_norms(model: ConvTransformer) -> dict[str, float]:
    """Euclidean norm of the gradient of each part of the model."""
    parts: dict[str, nn.Module] = {"base": model.base}
    parts |= {f"layer{number}": layer for number, layer in enumerate(model.encoder, 1)}
    parts["classifier"] = model.classifier
    gradients = {
        name: [each.grad for each in part.parameters() if each.grad is not None] for name, part in parts.items()
    }
    return {f"gradient_{name}": float(nn.utils.get_total_norm(each)) for name, each in gradients.items()}


@torch.no_grad()
def probe(model: ConvTransformer, x: Tensor) -> dict[str, float]:
    """What a Transformer makes of windows (B, 1, 16000), without dropout.

    Returns:
        entropy_layer1, entropy_layer2: of CLS's attention weights in nats, mean over windows and heads;
        similarity: mean cosine of the CLS outputs of two different windows, 1 if all windows get the same.
    """
    model.eval()
    tokens = model.tokens(x)  # (B, 33, 250)
    found = {}
    for number, layer in enumerate(model.encoder, 1):
        assert isinstance(layer, EncoderLayer)
        cls = layer.attention.attention_weights(tokens)[:, :, 0]  # (B, heads, 33)
        found[f"entropy_layer{number}"] = attention_entropy(cls).mean().item()
        tokens = layer(tokens)
    return found | {"similarity": mean_similarity(tokens[:, 0])}


def attention_entropy(weights: Tensor) -> Tensor:
    """Entropy -Σ w ln w of attention weights (..., T), in nats: ln T if uniform, 0 if all on one token."""
    entropy: Tensor = torch.special.entr(weights).sum(dim=-1)
    return entropy


def mean_similarity(x: Tensor) -> float:
    """Mean cosine of two different rows of x (n, width); NaN for a single row."""
    n = len(x)
    if n < 2:
        return float("nan")
    directions = nn.functional.normalize(x.cpu().double(), dim=1)  # Apple's GPU has no float64
    # the squared length of the sum is n cosines of a row with itself, and those of all pairs
    return float((directions.sum(0).square().sum() - n) / (n * (n - 1)))
