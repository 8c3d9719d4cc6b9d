"""Which experiments a suite runs: a plan, read from a small YAML file.

The plans that come with the project are ``workflow/plans/<name>.yaml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from audioclf_lib.config import (
    DEFAULT_RUNS_DIR,
    PROJECT_ROOT,
    DeviceName,
    Experiment,
    ModelName,
    ProtocolName,
    RecipeName,
    StrictModel,
    model_label,
)
from audioclf_lib.errors import InputError, quote, refuse_control_characters
from audioclf_lib.paths import replace_file, user_path

PLANS_DIR = PROJECT_ROOT / "workflow" / "plans"
DATASET_NAMES = ("demo", "esc10")  # a folder of such a name is given as ./demo


class PlannedExperiment(StrictModel):
    """An architecture with its head count, under a protocol."""

    model: ModelName
    num_heads: int | None = None
    protocol: ProtocolName

    def __str__(self) -> str:
        return f"{model_label(self.model, self.num_heads)}-{self.protocol}"


class PlannedCheck(PlannedExperiment):
    """An experiment on another test fold than the plan's."""

    test_fold: int


class Plan(StrictModel):
    """The experiments of a suite and what they have in common; see ``Experiment`` for the settings.

    Attributes:
        checks: experiments on other test folds, as a check that the recipe was not fitted to the plan's; they run after
            the others and are shown apart.

    Raises:
        InputError: an unknown setting, or one that is impossible for an experiment of the plan.
    """

    name: str = Field(min_length=1)
    dataset: str = "demo"
    epochs: int = 100
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    recipe: RecipeName = "tuned"
    recipe_changes: dict[str, Any] = Field(default_factory=dict)
    test_fold: int = 1
    diagnosis_epochs: int = Field(0, ge=0, description="of the diagnosis, at most those of the fits; 0: there is none")
    experiments: tuple[PlannedExperiment, ...] = Field(min_length=1)
    checks: tuple[PlannedCheck, ...] = ()

    @field_validator("name")
    @classmethod
    def _shown_as_it_is(cls, name: str) -> str:
        refuse_control_characters("the plan's name", name)
        return name

    @field_validator("seeds", "experiments", "checks")
    @classmethod
    def _named_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        repeated = next((value for index, value in enumerate(values) if value in values[:index]), None)
        if repeated is not None:
            what = repeated if isinstance(repeated, PlannedExperiment) else quote(repeated)
            raise ValueError(f"{what} is named twice; name each once")
        return values

    @model_validator(mode="after")
    def _possible(self) -> Plan:
        self.experiments_list()  # an Experiment rejects what cannot be run
        self.checks_list()
        if any(check.test_fold == self.test_fold for check in self.checks):
            raise ValueError(f"a check has the plan's own test fold {self.test_fold}; give it another one")
        return self

    def changed(self, **changes: Any) -> Plan:
        """The plan with other settings; a change to None is none. A check on the new test fold is left out."""
        values = self.model_dump() | {key: value for key, value in changes.items() if value is not None}
        if "checks" not in changes:
            values["checks"] = [check for check in values["checks"] if check["test_fold"] != values["test_fold"]]
        return Plan(**values)

    def experiments_list(
        self, device: DeviceName = "auto", runs_dir: Path | str = DEFAULT_RUNS_DIR
    ) -> list[Experiment]:
        """One experiment for each planned one and each seed, in the plan's order."""
        return self._for_each_seed(self.experiments, device, runs_dir)

    def checks_list(self, device: DeviceName = "auto", runs_dir: Path | str = DEFAULT_RUNS_DIR) -> list[Experiment]:
        """One experiment for each check and each seed, in the plan's order."""
        return self._for_each_seed(self.checks, device, runs_dir)

    def _for_each_seed(
        self, planned: Sequence[PlannedExperiment], device: DeviceName, runs_dir: Path | str
    ) -> list[Experiment]:
        common: dict[str, Any] = {
            "dataset": self.dataset,
            "epochs": self.epochs,
            "test_fold": self.test_fold,
            "recipe": self.recipe,
            "recipe_changes": self.recipe_changes,
            "device": device,
            "runs_dir": Path(runs_dir),
        }
        return [Experiment(**(common | {"seed": seed} | each.model_dump())) for seed in self.seeds for each in planned]


def load_plan(name_or_path: str | Path) -> Plan:
    """Read a plan by its name (``demo``, ``full``) or from a YAML file.

    A data set given in the file as a relative path (``./recordings``) is looked for beside the file.

    Raises:
        InputError: no such plan, unreadable YAML, unknown or impossible settings.
    """
    path = _plan_file(name_or_path)
    values = read_settings(path, "plan")
    try:
        plan = Plan(**({"name": path.stem} | values))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return plan.changed(dataset=resolve_dataset(plan.dataset, path.parent))


def read_settings(path: Path, what: str) -> dict[str, Any]:
    """The settings in a YAML file.

    Args:
        path: of the file.
        what: it is, for messages: ``plan``.

    Raises:
        InputError: unreadable file or YAML.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}; check the file and its rights") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no text, or an impossible date
        where = getattr(error, "problem_mark", None)
        fault = f"correct line {where.line + 1}" if where else f"correct the text ({str(error)[:100]})"
        raise InputError(f"{what} {path} is not valid YAML; {fault}") from None
    if not isinstance(values, dict):
        raise InputError(f"{what} {path} holds no settings; write lines such as `dataset: demo`")
    return {str(key): value for key, value in values.items()}


def save_plan(plan: Plan, path: Path | str) -> None:
    """Write a plan as YAML, so that ``load_plan`` gives it back; the file is replaced as a whole.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    text = yaml.safe_dump(plan.model_dump(mode="json", exclude_none=True), sort_keys=False)
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise InputError(f"cannot write plan {path}: {error.strerror}; choose another folder") from None


def resolve_dataset(name_or_path: str, base: Path | None = None) -> str:
    """A folder as an absolute path, since notebooks may run in other working directories; a name as it is."""
    folder = user_path((base or Path.cwd()) / user_path(name_or_path))
    bare = Path(str(folder).rsplit(":", 1)[0])  # without an option such as :esc10 or :4s
    is_folder = folder.is_dir() or bare.is_dir()
    is_name = name_or_path in DATASET_NAMES or (Path(name_or_path).name == name_or_path and not is_folder)
    return name_or_path if is_name else str(folder.resolve())


def _plan_file(name_or_path: str | Path) -> Path:
    path = user_path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"there is no plan {path}; check the path, or choose one of {', '.join(plan_names())}")
        return path.resolve()
    named = PLANS_DIR / f"{name_or_path}.yaml"
    if str(name_or_path) not in plan_names():
        known = ", ".join(plan_names())
        unknown = quote(str(name_or_path))
        raise InputError(f"unknown plan {unknown}; choose one of {known}, or give the path of a .yaml file")
    return named


def plan_names() -> list[str]:
    """Names of the plans that come with the project."""
    return sorted(path.stem for path in PLANS_DIR.glob("*.yaml"))


def last_plan_path(runs_dir: Path | str) -> Path:
    """Where a suite leaves the plan that it ran."""
    return Path(runs_dir) / "plan.yaml"


def load_last_plan(runs_dir: Path | str) -> Plan:
    """The plan of the last suite below ``runs_dir``; ``demo`` if none has been run there."""
    path = last_plan_path(runs_dir)
    return load_plan(path if path.is_file() else "demo")
