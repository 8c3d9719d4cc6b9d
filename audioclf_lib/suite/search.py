"""What a study searches: settings of a recipe and the values they may take, read from a small YAML file.

The studies that come with the project are ``workflow/studies/<name>.yaml``; ``tuning`` carries them out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from audioclf_lib._support.errors import InputError, quote
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT, user_path
from audioclf_lib.config import (
    DatasetFacts,
    DeviceName,
    Experiment,
    FitConfig,
    ModelName,
    Recipe,
    RecipeName,
    RunsDir,
    StrictModel,
)
from audioclf_lib.suite.plan import read_settings, resolve_dataset

STUDIES_DIR = PROJECT_ROOT / "workflow" / "studies"
# Settings that change nothing in the other architecture: to search them there would be to search noise.
ONLY_FOR = {"time_pull": "cnn", "encoder_lr_scale": "transformer"}


class SearchedSetting(StrictModel):
    """The values that one setting may take: all from ``low`` to ``high``, or those listed.

    Attributes:
        low, high: both ends, which belong to it.
        log: whether values are drawn evenly by their logarithm, as suits a rate that may differ by powers of ten.
        choices: the values, for a setting that is no number or where few numbers make sense.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_pydantic_would_take(cls, value: Any, info: ValidationInfo) -> Any:
        """Choices may be truth values; the recipe says which of its settings are."""
        if info.field_name != "log" and isinstance(value, bool):
            raise ValueError("true and false are no value for it; write a number")
        return value

    @model_validator(mode="after")
    def _range_or_choices(self) -> SearchedSetting:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("a setting has low and high, or choices; leave one out")
            if len(self.choices) < 2:
                raise ValueError(f"{len(self.choices)} choices leave nothing to search; give two or more")
        elif self.low is None or self.high is None:
            raise ValueError("low or high is missing; write {low: 0.1, high: 0.5}, or {choices: [0.1, 0.2]}")
        elif not self.low < self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}; put them in order")
        elif self.log and self.low <= 0:
            raise ValueError(f"low = {self.low:g} has no logarithm; raise it above 0, or leave log out")
        return self

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one that the search may choose."""
        if self.choices is not None:
            return value in self.choices
        return self.low is not None and self.high is not None and self.low <= value <= self.high


class StudyConfig(StrictModel):
    """A study: many fits that differ in a few settings of the recipe, scored on one validation fold.

    Attributes:
        name: short; the study's file is named after it.
        model, num_heads, dataset, epochs, test_fold, recipe, recipe_changes: as in ``Experiment``.
        val_fold: all that the settings are chosen by; the test fold is never scored.
        trials: how many fits there are in all, whoever trains them.
        seed: of every fit, and of the search.
        startup: so many trials are drawn at random before the search learns from their scores, and so many must be done
            before one is pruned.
        prune_after: share of the epochs that every trial trains; one whose best validation score is then below the
            median of the others is pruned (1: none is). A half, since a one-cycle schedule is at its height before.
        search: setting of the recipe -> its values.
        device, runs_dir: as in ``Experiment``; the study is kept beside its run folders.

    Raises:
        InputError: an unknown or impossible setting, or one that is both fixed and searched.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)
    model: ModelName
    num_heads: int | None = None
    dataset: str = "demo"
    epochs: int = 10
    trials: int = Field(20, ge=1, le=10_000)
    seed: int = 0
    test_fold: int = 1
    val_fold: int = 2
    recipe: RecipeName = "tuned"
    recipe_changes: dict[str, Any] = Field(default_factory=dict)
    startup: int = Field(8, ge=1)
    prune_after: float = Field(0.5, gt=0, le=1)
    search: dict[str, SearchedSetting] = Field(min_length=1)
    device: DeviceName = "auto"
    runs_dir: RunsDir = DEFAULT_RUNS_DIR

    @field_validator("search")
    @classmethod
    def _values_suit_the_recipe(cls, search: dict[str, SearchedSetting]) -> dict[str, SearchedSetting]:
        return {name: _suited(name, setting) for name, setting in search.items()}

    @model_validator(mode="after")
    def _possible(self) -> StudyConfig:
        self.experiment({})  # rejects what cannot be trained
        for name in self.search:
            if name in self.recipe_changes:
                raise ValueError(f"{name} is both searched and fixed in recipe_changes; take it out of one of them")
            if ONLY_FOR.get(name, self.model) != self.model:
                raise ValueError(f"{name} changes nothing in the {self.model}; take it out of the search")
        return self

    def changed(self, **changes: Any) -> StudyConfig:
        """The study with other settings; a change to None is none."""
        return StudyConfig(**(self.model_dump() | {key: value for key, value in changes.items() if value is not None}))

    def experiment(self, settings: dict[str, Any]) -> Experiment:
        """The experiment of a trial: what is fixed, and the ``settings`` that the search chose."""
        return Experiment(
            model=self.model,
            num_heads=self.num_heads,
            protocol="kfold",
            dataset=self.dataset,
            epochs=self.epochs,
            seed=self.seed,
            test_fold=self.test_fold,
            val_folds=(self.val_fold,),
            recipe=self.recipe,
            recipe_changes=self.recipe_changes | settings,
        )

    def fit(self, settings: dict[str, Any], dataset: DatasetFacts) -> FitConfig:
        """The fit of a trial, which never scores the test fold."""
        return self.experiment(settings).tuning_fit(dataset)

    @property
    def named_folds(self) -> list[int]:
        """The folds that a data set must have for this study."""
        return self.experiment({}).named_folds

    def as_it_stands(self) -> dict[str, Any] | None:
        """What the recipe sets where the study searches; None if the search leaves one of these values out."""
        recipe = self.experiment({}).recipe_settings
        settings = {name: getattr(recipe, name) for name in self.search}
        return settings if all(self.search[name].holds(value) for name, value in settings.items()) else None

    def study_id(self, dataset: DatasetFacts) -> str:
        """Readable and the same for the same study of the same recordings, e.g. ``cnn-seed0-e20-1a2b3c4d``.

        As with the names of run folders, whatever changes what the scores mean changes the name, and makes another
        study. The number of trials does not: a study may be made longer.
        """
        values = self.model_dump(
            mode="json", exclude={"trials", "dataset", "device", "runs_dir"}, exclude_defaults=True
        )
        values["fingerprint"] = dataset.fingerprint
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.name}-seed{self.seed}-e{self.epochs}-{digest}"


def is_whole(name: str) -> bool:
    """Whether a setting of the recipe is a whole number."""
    return Recipe.model_fields[name].annotation is int


def _suited(name: str, setting: SearchedSetting) -> SearchedSetting:
    """The setting with its values as the recipe takes them."""
    if name not in Recipe.model_fields:
        raise ValueError(f"unknown setting {quote(name)}; known are {', '.join(Recipe.model_fields)}")
    if setting.choices is not None:
        choices = tuple(_as_recipe_takes_it(name, value) for value in setting.choices)
        if len(set(choices)) < len(choices):
            raise ValueError(f"the choices of {name} name a value twice; name each once")
        return SearchedSetting(choices=choices)
    if Recipe.model_fields[name].annotation not in (int, float):
        raise ValueError(f"{name} is no number and has no range; give its choices")
    for end in (setting.low, setting.high):
        _as_recipe_takes_it(name, end)
    return setting


def _as_recipe_takes_it(name: str, value: Any) -> Any:
    try:
        return getattr(Recipe(**{name: value}), name)
    except InputError as error:
        raise ValueError(str(error).removeprefix("recipe: ")) from None


def load_study(name_or_path: str | Path) -> StudyConfig:
    """Read a study by its name (``cnn``, ``transformer``) or from a YAML file, after which it is called by default.

    A data set given in the file as a relative path is looked for beside the file.

    Raises:
        InputError: no such study, unreadable YAML, unknown or impossible settings.
    """
    path = _study_file(name_or_path)
    values = read_settings(path, "study")
    try:
        study = StudyConfig(**({"name": path.stem} | values))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return study.changed(dataset=resolve_dataset(study.dataset, path.parent))


def _study_file(name_or_path: str | Path) -> Path:
    known = sorted(path.stem for path in STUDIES_DIR.glob("*.yaml"))
    if str(name_or_path) in known:
        return STUDIES_DIR / f"{name_or_path}.yaml"
    path = user_path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"unknown study {quote(str(name_or_path))}; choose one of {', '.join(known)}, or give the path of a .yaml "
            "file"
        )
    if not path.is_file():
        raise InputError(f"there is no study {path}; check the path, or choose one of {', '.join(known)}")
    return path.resolve()
