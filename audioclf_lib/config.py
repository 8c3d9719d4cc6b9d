"""What a run is: recipes, experiments and fits as frozen models that reject unknown or impossible values.

``Experiment`` is what a notebook or a plan asks for; its ``fits()`` are what gets trained; a ``FitConfig`` holds all
that determines one fit's result and names its run folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from audioclf_lib._support.choices import DeviceName, LogName, ProtocolName, RecipeName
from audioclf_lib._support.digests import digest
from audioclf_lib._support.errors import InputError, plain_reason, quote
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, user_path
from audioclf_lib.models import ModelEntry, find_model

if TYPE_CHECKING:
    from torch import nn

RECIPES: tuple[str, ...] = get_args(RecipeName)

# Part of every fit id: raise it when the same configuration would train to other numbers than before, and when the
# default of a setting changes (a new setting whose default changes nothing is no reason, see ``FitConfig.fit_id``).
SCHEMA_VERSION = 2

MAX_FOLD = 999_999  # numbers of folds, not how many there are
Fold = Annotated[int, Field(ge=0, le=MAX_FOLD)]
MAX_THREADS = 1024
Share = Annotated[float, Field(ge=0, lt=1)]
Decibels = Annotated[float, Field(ge=0, le=40)]
MAX_NAMED_CHANGES = 3  # changed settings that an experiment's name and title spell out


def _runs_dir(value: Any) -> Any:
    if not value:
        return DEFAULT_RUNS_DIR
    return user_path(value) if isinstance(value, (str, Path)) else value


RunsDir = Annotated[Path, BeforeValidator(_runs_dir)]  # the project's own where nothing is given


class DatasetFacts(Protocol):
    """What a configuration needs to know of a data set."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def folds(self) -> Iterable[int]: ...
    @property
    def class_names(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class KnownDataset:
    """What is known of a data set without its recordings: from run folders, or before anything is decoded."""

    name: str
    fingerprint: str
    folds: tuple[int, ...]
    class_names: tuple[str, ...]


class StrictModel(BaseModel):
    """A frozen model that turns pydantic's report into one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(explain(error, type(self))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_pydantic_would_take(cls, value: Any, info: ValidationInfo) -> Any:
        """Truth for a number, since Python takes True for 1; and settings whose names are no text, as YAML has them."""
        given = value if isinstance(value, (list, tuple)) else [value]
        wants_truth = cls.model_fields[str(info.field_name)].annotation is bool
        if not wants_truth and any(isinstance(item, bool) for item in given):
            raise ValueError("true and false are no value for it; write a number or a text")
        if any(isinstance(item, dict) and not all(isinstance(key, str) for key in item) for item in given):
            raise ValueError("the names of settings are texts; write name: value")
        return value


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One sentence for the first thing wrong: which setting, what is wrong with it, what would be right."""
    first = error.errors()[0]
    setting = ".".join(str(part) for part in first["loc"])[:200]
    what = model.__name__.removesuffix("Config").lower()
    if first["type"] == "extra_forbidden":
        return f"{what}: unknown setting {setting!r}; known are {', '.join(model.model_fields)}"
    if first["type"] == "missing":
        return f"{what}: setting {setting!r} is missing; give it a value"
    if not setting:
        return f"{what}: {first['msg'].removeprefix('Value error, ')}"
    return f"{what}: {setting} = {quote(first['input'])} is not possible: {plain_reason(first['msg'])}"


class Recipe(StrictModel):
    """How a fit is trained, apart from the architecture: each lever with the reason it is there.

    The defaults are what the original report describes; see ``RECIPE_CHANGES`` for ``tuned``.
    """

    dropout: Share = Field(0.5, description="rate of the convolutional base's dropout")
    activation: Literal["none", "relu"] = Field("none", description="after batch norms; none: the base is near linear")
    optimizer: Literal["adam", "adamw"] = Field("adam", description="AdamW decays weights apart from the gradient")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="constant, or the peak of the schedule")
    encoder_lr_scale: float = Field(
        1.0, gt=0, le=1, description="share of the learning rate for the Transformer's encoder: it bears less"
    )
    weight_decay: float = Field(0.0, ge=0, le=10, description="pulls weights to zero: few clips, many weights")
    batch_size: int = Field(32, ge=1, le=4096, description="windows in a step")
    schedule: Literal["constant", "one-cycle"] = Field("constant", description="one-cycle: warm-up, then cosine to 0")
    warmup_fraction: Share = Field(0.0, description="share of the steps with rising rate; Transformers need it")
    max_grad_norm: float = Field(0.0, ge=0, description="largest gradient norm (0: unlimited); guards the first steps")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: rare classes count like others")
    drop_silent: bool = Field(False, description="leave silent windows out of training: they hold no class")
    random_crops: bool = Field(False, description="shift each window by up to half a hop: position means nothing")
    speed_perturbation: float = Field(
        1.0, ge=1, le=4, description="play each window up to this much faster or slower (1: never): pitch and pace vary"
    )
    gain_db: Decibels = Field(0.0, description="random gain of up to ± this many dB: loudness means little")
    tilt_db: Decibels = Field(0.0, description="tilt the spectrum by up to ± this many dB: microphones differ")
    flip_polarity: bool = Field(False, description="turn half of the windows upside down: the ear does not hear it")
    peak_normalise: bool = Field(False, description="scale each window to peak 1, in evaluation too")
    companding: float = Field(
        0.0, ge=0, le=1e4, description="µ of a logarithmic curve that lifts quiet samples (0: none), in evaluation too"
    )
    mixup_alpha: float = Field(0.0, ge=0, le=10, description="Beta parameter of between-class mixing (0: none)")
    label_smoothing: Share = Field(0.0, description="share of the target spread over all classes")
    time_pull: float = Field(0.0, ge=0, le=100, description="pulls the CNN's last layer to equal weights at all times")
    ema_decay: Share = Field(0.0, description="decay per step of the mean of the weights that is scored and kept")
    reestimate_windows: int = Field(
        0, ge=0, le=10**6, description="training windows that batch-norm statistics are re-estimated from, no dropout"
    )


# What `tuned` changes of the recipe as written for every architecture; each adds its own, see ``register_model``.
TUNED: dict[str, Any] = {
    "dropout": 0.2,
    "activation": "relu",
    "optimizer": "adamw",
    "learning_rate": 3e-3,
    "weight_decay": 0.05,
    "batch_size": 16,
    "schedule": "one-cycle",
    "warmup_fraction": 0.2,
    "max_grad_norm": 1.0,
    "drop_silent": True,
    "random_crops": True,
    "gain_db": 6.0,
    "flip_polarity": True,
    "peak_normalise": True,
    "speed_perturbation": 1.25,
    "mixup_alpha": 0.2,
    "reestimate_windows": 512,
}


def make_recipe(name: str, model: ModelEntry | str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The settings of recipe ``name`` for an architecture, with the user's ``changes`` on top.

    Raises:
        InputError: unknown recipe, unknown setting or impossible value.
    """
    if name not in RECIPES:
        raise InputError(f"unknown recipe {quote(name)}; choose one of {', '.join(RECIPES)}")
    model = find_model(model) if isinstance(model, str) else model
    settings = {**TUNED, **model.tuned} if name == "tuned" else {}
    return Recipe(**settings | dict(changes or {}))


def changed_settings(settings: Recipe, name: str, model: ModelEntry | str) -> dict[str, Any]:
    """Those settings that recipe ``name`` has otherwise for the architecture."""
    usual = make_recipe(name, model)
    return {setting: value for setting, value in settings if value != getattr(usual, setting)}


def describe_changes(settings: Recipe, name: str, model: ModelEntry | str) -> list[str]:
    """The same in words, ``["learning rate 0.003"]``; more than three are counted, with a digest of their values."""
    changes = changed_settings(settings, name, model)
    if len(changes) > MAX_NAMED_CHANGES:
        return [f"{len(changes)} changes {digest(changes, 4)}"]
    return [f"{setting.replace('_', ' ')} {in_words(value)}" for setting, value in changes.items()]


class FitConfig(StrictModel):
    """All that determines one fit's result: what ``config.json`` in its run folder says.

    Attributes:
        dataset, fingerprint, class_names: of the data set; the name is also the folder of its runs.
        model: registered name of the architecture; ``model_settings`` are the arguments of its class, and
            ``model_digest`` stands for its source code.
        model_title, model_label: for headings and for the fit's id; they determine nothing.
        recipe, recipe_settings: how it is trained.
        train_folds, val_fold, test_fold: which folds have which part.
        threads: of the processor that train it; sums over another number of threads round otherwise.
        score_test: score the test fold after every epoch; in tuning never.
    """

    schema_version: int = SCHEMA_VERSION
    dataset: str = Field(pattern=r"^\w[\w.-]*$")
    fingerprint: str
    class_names: tuple[str, ...]
    model: str
    model_settings: dict[str, Any] = Field(default_factory=dict)
    model_digest: str
    model_title: str
    model_label: str
    recipe: RecipeName
    recipe_settings: Recipe
    train_folds: tuple[int, ...]
    val_fold: int
    test_fold: int
    seed: int
    epochs: int = Field(ge=1)
    threads: int = Field(1, ge=1, le=MAX_THREADS)
    score_test: bool = True

    @model_validator(mode="after")
    def _folds_apart(self) -> FitConfig:
        folds = [*self.train_folds, self.val_fold, self.test_fold]
        if not self.train_folds or len(set(folds)) != len(folds):
            raise ValueError(
                f"training folds {list(self.train_folds)}, validation fold {self.val_fold} and test fold "
                f"{self.test_fold} are not apart; give each fold one part, and training at least one"
            )
        return self

    @property
    def known_dataset(self) -> KnownDataset:
        """What a fit tells of its data set."""
        folds = tuple(sorted({*self.train_folds, self.val_fold, self.test_fold}))
        return KnownDataset(self.dataset, self.fingerprint, folds, self.class_names)

    @property
    def fit_id(self) -> str:
        """Readable and the same for the same configuration, e.g. ``cnn-val2-test1-seed0-tuned-e100-1a2b3c4d``.

        The digest at its end is over every value that is not the default, so a setting that is added later, with a
        default that changes nothing, leaves the names of folders that were trained before it. A default that changes
        would give two trainings one name: whoever changes one raises ``SCHEMA_VERSION``, which is always in the digest.
        """
        values = self.model_dump(mode="json", exclude_defaults=True, exclude={"model_title"})
        values["schema_version"] = self.schema_version
        folds = f"val{self.val_fold}-test{self.test_fold}"
        return f"{self.model_label}-{folds}-seed{self.seed}-{self.recipe}-e{self.epochs}-{digest(values)}"


class Experiment(StrictModel):
    """What one notebook runs: an architecture with its settings, under a protocol.

    Args:
        model: ``"cnn"``, ``"transformer"``, the name of another registered architecture, or the file of an own one
            (``my_net.py``, or ``my_net.py:my-net`` where it registers several).
        model_settings: arguments of the architecture's class; each may also stand for itself: ``num_heads=4``.
        protocol: ``"kfold"`` (one fit for each fold but the test fold), ``"split"`` (one fit), or ``"rotation"`` (the
            split with each fold as the test fold, so that every clip is tested once).
        dataset: name (``"demo"``, ``"esc10"``) or folder of a data set.
        epochs, seed: of every fit.
        test_fold: never trained on, never used to choose an epoch; a rotation has no single one.
        test_folds: of a rotation; ``"all"`` or nothing: every fold. A split that is given some becomes a rotation.
        val_folds: validation folds to fit, for ``kfold``; all but the test fold unless given.
        recipe: ``"tuned"`` or ``"as-written"``.
        recipe_changes: recipe settings to change: a dict or a JSON object as text.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        threads: processor threads that train a fit.
        runs_dir: where run folders are kept.
        log: what else is told of every epoch: ``"none"``, ``"tensorboard"`` or ``"wandb"``.

    Raises:
        InputError: an unknown or impossible value.
    """

    model: str
    model_settings: dict[str, Any] = Field(default_factory=dict)
    protocol: ProtocolName = "kfold"
    dataset: str = "demo"
    epochs: int = Field(100, ge=1, le=100_000)
    seed: int = Field(0, ge=0, lt=2**32)
    test_fold: Fold = 1
    test_folds: tuple[Fold, ...] | None = None
    val_folds: tuple[Fold, ...] | None = None
    recipe: RecipeName = "tuned"
    recipe_changes: dict[str, Any] = Field(default_factory=dict)
    device: DeviceName = "auto"
    threads: int = Field(1, ge=1, le=MAX_THREADS)
    runs_dir: RunsDir = DEFAULT_RUNS_DIR
    log: LogName = "none"

    @model_validator(mode="before")
    @classmethod
    def _gather_model_settings(cls, values: Any) -> Any:
        """What is no setting of an experiment is one of its architecture."""
        if not isinstance(values, dict):
            return values
        given = values.get("model_settings") or {}
        if values.get("protocol") == "split" and values.get("test_folds") not in (None, "", [], ()):
            values = values | {"protocol": "rotation"}
        own = {key: value for key, value in values.items() if key not in cls.model_fields}
        if not own or not isinstance(given, dict):
            return values
        return {key: value for key, value in values.items() if key not in own} | {"model_settings": given | own}

    @field_validator("dataset", "model", mode="before")
    @classmethod
    def _paths_are_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("recipe_changes", "model_settings", mode="before")
    @classmethod
    def _parse_json(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return {} if value is None else value
        try:
            return json.loads(value or "{}")
        except (ValueError, RecursionError) as error:  # not JSON, a number of too many digits, too many brackets
            example = '{"dropout": 0.2}' if info.field_name == "recipe_changes" else '{"width": 32}'
            raise ValueError(f"not a JSON object ({error}); write for example {example}") from None

    @field_validator("val_folds", "test_folds", mode="before")
    @classmethod
    def _parse_folds(cls, value: Any, info: ValidationInfo) -> Any:
        """``"[2, 3]"``, ``"2, 3"`` and ``2`` as papermill's and the command line's options give them; empty: all."""
        if value == "all" and info.field_name == "test_folds":
            return None
        if isinstance(value, str):
            try:
                value = json.loads(f"[{value.strip(' []()')}]")
            except ValueError:
                raise ValueError("it must be a list of folds, such as [2, 3]") from None
        if isinstance(value, int) and not isinstance(value, bool):
            value = [value]
        return None if value in ([], ()) else value

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.val_folds is not None and self.protocol != "kfold":
            raise ValueError(f"val_folds belongs to the kfold protocol; the {self.protocol} protocol chooses its own")
        if self.test_folds is not None and self.protocol != "rotation":
            raise ValueError("test_folds belongs to the rotation; kfold has one test_fold")
        if self.val_folds is not None and self.test_fold in self.val_folds:
            raise ValueError(f"val_folds = {list(self.val_folds)} holds the test fold {self.test_fold}; take it out")
        for name in ("val_folds", "test_folds"):
            folds = getattr(self, name) or ()
            if len(set(folds)) != len(folds):
                raise ValueError(f"{name} = {list(folds)} names a fold twice; name each once")
        if self.protocol == "rotation":
            object.__setattr__(self, "test_fold", Experiment.model_fields["test_fold"].default)
        for name in self.model_settings:
            if name not in self.entry.setting_names:
                known = ", ".join([*Experiment.model_fields, *self.entry.setting_names])
                raise ValueError(f"unknown setting {quote(name)} for model {self.entry.name}; known are {known}")
        object.__setattr__(self, "model_settings", self.entry.settings(self.model_settings))
        _ = self.recipe_settings  # raises on unknown or impossible settings
        return self

    @cached_property
    def entry(self) -> ModelEntry:
        """The architecture as it was registered when this experiment was made."""
        return find_model(self.model)

    @cached_property
    def recipe_settings(self) -> Recipe:
        return make_recipe(self.recipe, self.entry, self.recipe_changes)

    def create_model(self, num_classes: int) -> nn.Module:
        """A freshly initialised model, with the recipe's dropout and activation where the architecture takes them."""
        return self.entry.create_for(self.recipe_settings, num_classes=num_classes, **self.model_settings)

    @property
    def title(self) -> str:
        """The architecture with its settings, for headings: ``CNN``, ``Transformer, 2 heads``."""
        return self.entry.full_title(self.model_settings)

    @property
    def label(self) -> str:
        """Short name of the architecture with its settings: ``cnn``, ``transformer-h4``."""
        return self.entry.label(self.model_settings)

    @property
    def name(self) -> str:
        """Short name, e.g. ``cnn-kfold``, ``transformer-h4-split``."""
        return f"{self.label}-{self.protocol}"

    @property
    def differences(self) -> list[str]:
        """What is not the default, but for the epochs: ``["test fold 3", "as-written", "learning rate 0.003"]``."""
        folds = f"test folds {', '.join(map(str, self.test_folds or ()))}"
        texts = {
            "test_fold": f"test fold {self.test_fold}",
            "test_folds": folds,
            "seed": f"seed {self.seed}",
            "recipe": self.recipe,
        }
        found = [text for name, text in texts.items() if getattr(self, name) != Experiment.model_fields[name].default]
        return found + describe_changes(self.recipe_settings, self.recipe, self.entry)

    @property
    def full_name(self) -> str:
        """The name with what is not the default: ``cnn-split-test3``, ``cnn-split-as-written-learning-rate-0-003``."""
        return slug(self.name, *(re.sub(r"^(test|seed)( folds?)? ", r"\1", each) for each in self.differences))

    @property
    def named_folds(self) -> list[int]:
        """The folds that a data set must have for this experiment."""
        if self.protocol == "rotation":
            return list(self.test_folds or ())
        return [self.test_fold, *(self.val_folds or ())]

    def changed(self, **changes: Any) -> Experiment:
        """The experiment with other settings."""
        return Experiment(**(self.model_dump() | changes))

    def fold_pairs(self, all_folds: Iterable[int]) -> list[tuple[int, int]]:
        """Validation fold and test fold of each of this experiment's fits, in order.

        Args:
            all_folds: fold of every clip, or every fold once.

        Raises:
            InputError: a fold that the data set does not have.
        """
        folds = sorted({int(fold) for fold in all_folds})
        refuse_missing_folds(self.dataset, folds, self.named_folds)
        if self.protocol == "kfold":
            return [(fold, self.test_fold) for fold in self.val_folds or folds if fold != self.test_fold]
        tested = [self.test_fold] if self.protocol == "split" else self.test_folds or folds
        validated = {test_fold: val_fold for val_fold, test_fold in rotation(folds)}
        return [(validated[fold], fold) for fold in tested]

    def fits(self, dataset: DatasetFacts) -> list[FitConfig]:
        """The fits of this experiment on ``dataset``, one for each validation fold or, in a rotation, test fold."""
        folds = sorted({int(fold) for fold in dataset.folds})
        return [
            FitConfig(
                dataset=dataset.name,
                fingerprint=dataset.fingerprint,
                class_names=tuple(dataset.class_names),
                model=self.entry.name,
                model_digest=self.entry.digest,
                model_title=self.title,
                model_label=self.label,
                recipe_settings=self.recipe_settings,
                train_folds=tuple(fold for fold in folds if fold not in (val_fold, test_fold)),
                val_fold=val_fold,
                test_fold=test_fold,
                **self.model_dump(include={"model_settings", "recipe", "seed", "epochs", "threads"}),
            )
            for val_fold, test_fold in self.fold_pairs(folds)
        ]

    def tuning_fit(self, dataset: DatasetFacts) -> FitConfig:
        """The fit that settings are chosen by: of the one validation fold, and its test fold is never scored."""
        (config,) = self.fits(dataset)
        return config.model_copy(update={"score_test": False})


def rotation(folds: Iterable[int]) -> list[tuple[int, int]]:
    """Validation and test fold: every fold is the test fold once, and the fold that follows it validates.

    Args:
        folds: fold of every clip, or every fold once.
    """
    ordered = sorted({int(fold) for fold in folds})
    return list(zip([*ordered[1:], *ordered[:1]], ordered, strict=True))


def refuse_missing_folds(dataset: str, folds: Sequence[int], wanted: Iterable[int]) -> None:
    """Raise InputError for the first fold of ``wanted`` that a data set with these ``folds`` does not have."""
    for fold in wanted:
        if fold not in folds:
            raise InputError(f"fold {fold} is not in data set {dataset!r}; its folds are {list(folds)}")


def slug(name: str, *differences: str) -> str:
    """A name with what tells it from others, for files and labels: ``cnn-kfold-learning-rate-0-003``."""
    return "-".join([name, *(re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") for text in differences if text)])


def in_words(value: bool | float | str) -> str:
    """The value of a setting: ``yes``, ``0.003``, ``adamw``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
