"""Why the original failed: its recipe beside the same recipe with one change at a time, and a look inside.

Every variant is an ordinary fit on the folds of the train-test split. Two tables are kept beside the run folders: the
scores of a fit's weights with batch-norm statistics re-estimated (``rescore``), and, for some Transformers, gradients,
attention and CLS outputs in the first steps of training (``trace_fit``).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import model_validator
from torch import Tensor, nn

from audioclf_lib.acceleration import accelerate
from audioclf_lib.batches import Windows, normalise
from audioclf_lib.config import (
    DEFAULT_RUNS_DIR,
    MODELS,
    DatasetFacts,
    DeviceName,
    Experiment,
    FitConfig,
    ModelName,
    RunsDir,
    StrictModel,
)
from audioclf_lib.datasets import Dataset
from audioclf_lib.models import ConvTransformer, EncoderLayer
from audioclf_lib.plan import Plan
from audioclf_lib.store import Run, RunStore
from audioclf_lib.training import (
    REFERENCE,
    choose_device,
    epoch_seed,
    fresh_model,
    make_optimizer,
    reestimate_statistics,
    score_windows,
    train_epoch,
    training_windows,
    windows_by_split,
)

TRACE_EPOCHS = 2
PROBES_PER_EPOCH = 8
PROBE_WINDOWS = 32
REESTIMATE_WINDOWS = 512
RESCORED, TRACE = "reestimated", "trace"  # names of the tables beside the run folders


@dataclass(frozen=True)
class Variant:
    """The recipe as written with some settings changed.

    Attributes:
        name: for tables and legends.
        changes: recipe settings on top of ``as-written``.
        reason: why it might matter, one line.
        models: architectures that it is tried with.
        traced: whether the first steps of its Transformer are looked into.
    """

    name: str
    changes: dict[str, Any]
    reason: str
    models: tuple[str, ...] = MODELS
    traced: bool = False


AS_WRITTEN = Variant(
    "as written",
    {},
    "what the original report describes; it states no learning rate, so Adam's usual 0.001",
    traced=True,
)
REMEDIES = (
    Variant(
        "statistics re-estimated",
        {"reestimate_windows": REESTIMATE_WINDOWS},
        "batch norm gathers its statistics under dropout, and they are wrong without it",
    ),
    Variant("silent windows left out", {"drop_silent": True}, "a silent window holds no class: its label is noise"),
    Variant(
        "warm-up",
        {"schedule": "one-cycle", "warmup": 0.2},
        "full steps from fresh weights can throw a post-norm Transformer off; the rate rises first and then falls",
        traced=True,
    ),
    Variant(
        "augmentation",
        {"random_crops": True, "gain_db": 6.0, "flip_polarity": True},
        "few clips: position, loudness and sign of a window mean nothing",
    ),
    Variant("mixing", {"mixing": 0.2}, "windows between two classes keep the network from learning clips by heart"),
)
ALL_REMEDIES = Variant(
    f"all {len(REMEDIES)} remedies",
    {key: value for remedy in REMEDIES for key, value in remedy.changes.items()},
    "whether they add up",
)
HIGH_RATE = Variant(
    "rate ten times as high",
    {"learning_rate": 1e-2},
    "no remedy but a suspicion: the original does not state its learning rate",
    models=("transformer",),
    traced=True,
)
VARIANTS = (AS_WRITTEN, *REMEDIES, ALL_REMEDIES, HIGH_RATE)


# ----------------------------------------------------------------------------------------------- what is looked into


class Diagnosis(StrictModel):
    """What the diagnosis notebook runs; see :class:`audioclf_lib.config.Experiment` for the settings.

    Raises:
        InputError: an unknown or impossible value.
    """

    dataset: str = "demo"
    epochs: int = 8
    seed: int = 0
    test_fold: int = 1
    num_heads: int = 1
    device: DeviceName = "auto"
    runs_dir: RunsDir = DEFAULT_RUNS_DIR

    @model_validator(mode="after")
    def _possible(self) -> Diagnosis:
        for model in MODELS:
            self.experiment(model, AS_WRITTEN)  # an Experiment rejects what cannot be run
        return self

    def experiment(self, model: ModelName, variant: Variant) -> Experiment:
        return Experiment(
            model=model,
            num_heads=self.num_heads if model == "transformer" else None,
            protocol="split",
            dataset=self.dataset,
            epochs=self.epochs,
            seed=self.seed,
            test_fold=self.test_fold,
            recipe="as-written",
            recipe_changes=variant.changes,
            device=self.device,
            runs_dir=self.runs_dir,
        )

    def cases(self, dataset: DatasetFacts) -> list[Case]:
        """One case for each architecture and variant, none of them trained.

        Raises:
            InputError: a test fold that the data set does not have.
        """
        return [
            Case(model, variant, self.experiment(model, variant).fits(dataset)[0])
            for model in MODELS
            for variant in VARIANTS
            if model in variant.models
        ]


def planned_diagnosis(
    plan: Plan, device: DeviceName = "auto", runs_dir: Path | str = DEFAULT_RUNS_DIR
) -> Diagnosis | None:
    """The diagnosis of a plan, never longer than the plan's own fits; None if the plan has none."""
    if not plan.diagnosis_epochs:
        return None
    return Diagnosis(
        dataset=plan.dataset,
        epochs=min(plan.diagnosis_epochs, plan.epochs),
        seed=plan.seeds[0],
        test_fold=plan.test_fold,
        device=device,
        runs_dir=Path(runs_dir),
    )


@dataclass(frozen=True)
class Case:
    """One architecture trained by one variant of the recipe.

    Attributes:
        model: ``"cnn"`` or ``"transformer"``.
        variant: what was changed.
        config: the fit.
        run: the finished fit, if it is there.
        rescored: a row per split (index ``validation``, ``test``) with loss, accuracy and clip_accuracy of the kept
            weights after batch-norm statistics were re-estimated.
        trace: see :func:`trace_fit`.
    """

    model: ModelName
    variant: Variant
    config: FitConfig
    run: Run | None = None
    rescored: pd.DataFrame | None = None
    trace: pd.DataFrame | None = None

    @property
    def is_traced(self) -> bool:
        return self.variant.traced and self.model == "transformer"

    @property
    def is_complete(self) -> bool:
        missing_trace = self.is_traced and self.trace is None
        return self.run is not None and self.rescored is not None and not missing_trace


def read_cases(diagnosis: Diagnosis, dataset: DatasetFacts) -> list[Case]:
    """All cases with what is there of each; nothing is computed."""
    store = RunStore(diagnosis.runs_dir)
    return [
        replace(
            case,
            run=store.load(case.config) if store.exists(case.config) else None,
            rescored=store.load_trace(case.config, RESCORED),
            trace=store.load_trace(case.config, TRACE),
        )
        for case in diagnosis.cases(dataset)
    ]


def examine_cases(diagnosis: Diagnosis, dataset: Dataset) -> list[Case]:
    """All cases of a diagnosis whose fits are trained; tables that are not there yet are computed and kept.

    Raises:
        InputError: a fit that has not been trained.
    """
    store, device = RunStore(diagnosis.runs_dir), choose_device(diagnosis.device)
    for case in read_cases(diagnosis, dataset):
        run = case.run or store.load(case.config)
        if case.rescored is None:
            store.save_trace(case.config, RESCORED, rescore(run, dataset, device))
        if case.is_traced and case.trace is None:
            store.save_trace(case.config, TRACE, trace_fit(run, dataset, device))
    return read_cases(diagnosis, dataset)


# --------------------------------------------------------------------------------------------- the same weights again


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
        rows[split] = {name.removeprefix("again_"): value for name, value in scored.scores("again").items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")


def _reestimate(model: nn.Module, network: nn.Module, training: Windows, config: FitConfig, n_windows: int) -> None:
    recipe = config.recipe_settings.model_copy(update={"reestimate_windows": n_windows})
    reestimate_statistics(model, network, training, recipe, config.seed)


# ------------------------------------------------------------------------------------------------- inside the training


def trace_fit(run: Run, dataset: Dataset, device: torch.device, epochs: int = TRACE_EPOCHS) -> pd.DataFrame:
    """Repeat the first epochs of a Transformer's fit with the same random numbers and record what happens inside.

    The numbers are the fit's own where it was trained on this machine and with as many threads.

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
    recorder = _Recorder(model, training, config, device)
    for epoch in range(min(epochs, config.epochs)):
        torch.manual_seed(epoch_seed(config.seed, epoch))
        train_epoch(model, network, optimizer, training, recipe, n_classes, epoch, config.epochs, observe=recorder)
    return pd.DataFrame(recorder.rows)


@dataclass
class _Recorder:
    """Notes a row in every step; looks at copies only, and draws no random number of the training's."""

    model: ConvTransformer
    training: Windows
    config: FitConfig
    device: torch.device
    rows: list[dict[str, float]] = field(default_factory=list)

    def __call__(self, loss: Tensor) -> None:
        batch_size = self.config.recipe_settings.batch_size
        steps = math.ceil(len(self.training) / batch_size)  # of an epoch
        epoch, step = divmod(len(self.rows), steps)
        row: dict[str, float] = {"epoch": epoch + 1, "step": len(self.rows) + 1}
        row["windows"] = min(batch_size, len(self.training) - step * batch_size)
        row |= {"loss": loss.item()} | gradient_norms(self.model)
        if step % math.ceil(steps / PROBES_PER_EPOCH) == 0:
            row |= self._probe()
        self.rows.append(row)

    def _probe(self) -> dict[str, float]:
        twin = copy.deepcopy(self.model)
        _reestimate(twin, accelerate(twin, self.device), self.training, self.config, PROBE_WINDOWS)
        heard = self.training.subset(~self.training.is_silent)
        chosen = torch.linspace(0, len(heard) - 1, min(PROBE_WINDOWS, len(heard))).long()
        return probe(twin, normalise(heard.cut(chosen)[0], self.config.recipe_settings))


def gradient_norms(model: ConvTransformer) -> dict[str, float]:
    """Euclidean norm of the gradient of each part of the model."""
    parts: dict[str, nn.Module] = {"base": model.base}
    parts |= {f"layer{number}": layer for number, layer in enumerate(model.encoder, 1)}
    parts["classifier"] = model.classifier
    return {f"gradient_{name}": _gradient_norm(part.parameters()) for name, part in parts.items()}


def _gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(nn.utils.get_total_norm(gradients))


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
    directions = nn.functional.normalize(x.double(), dim=1)
    # the squared length of the sum is n cosines of a row with itself, and those of all pairs
    return float((directions.sum(0).square().sum() - n) / (n * (n - 1)))
