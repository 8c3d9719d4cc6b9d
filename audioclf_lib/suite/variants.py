"""The diagnosis: the original's recipe with one change at a time, as fits to train and as what is there of them.

Every variant is an ordinary fit on the folds of the train-test split. What is looked into beyond that, and the tables
kept beside the run folders, is in :mod:`audioclf_lib.suite.diagnosis`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import model_validator

from audioclf_lib._support.paths import DEFAULT_RUNS_DIR
from audioclf_lib.config import MODELS, DatasetFacts, DeviceName, Experiment, FitConfig, ModelName, RunsDir, StrictModel
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.suite.plan import Plan

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
        {"schedule": "one-cycle", "warmup_fraction": 0.2},
        "full steps from fresh weights can throw a post-norm Transformer off; the rate rises first and then falls",
        traced=True,
    ),
    Variant(
        "augmentation",
        {"random_crops": True, "gain_db": 6.0, "flip_polarity": True},
        "few clips: position, loudness and sign of a window mean nothing",
    ),
    Variant(
        "mixup_alpha", {"mixup_alpha": 0.2}, "windows between two classes keep the network from learning clips by heart"
    ),
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
