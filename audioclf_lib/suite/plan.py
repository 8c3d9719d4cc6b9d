"""Which experiments a suite runs: a plan, read from a small YAML file.

The plans that come with the project are ``workflow/plans/<name>.yaml``. A file whose data set, recipe, learning rate or
test fold is a list describes several plans, a sweep: ``mine.yaml:tuned-test3`` names one of them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from audioclf_lib._support.errors import InputError, quote, refuse_control_characters
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT, explained, replace_file, user_path
from audioclf_lib.config import DeviceName, Experiment, ModelName, ProtocolName, RecipeName, StrictModel, model_label

PLANS_DIR = PROJECT_ROOT / "workflow" / "plans"
DATASET_NAMES = ("demo", "esc10")  # a folder of such a name is given as ./demo
CHOICES = ("dataset", "recipe", "learning_rate", "test_fold")  # what the plans of a sweep may differ in
MAX_COMBINATIONS = 1000  # of the values in lists
ONE_OF_A_SWEEP = re.compile(r"(?P<plan>.+\.ya?ml|[^/:]+):(?P<name>.+)", re.DOTALL)


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

    In an experiment every setting may be a list, which stands for an experiment with each of its values.

    Attributes:
        learning_rate: a short way to give the recipe change of that name, which is where it goes.
        spread_folds: run every fit of a k-fold experiment as a notebook of its own first, so that they can run at once.
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
    learning_rate: None = None
    test_fold: int = 1
    spread_folds: bool = False
    diagnosis_epochs: int = Field(0, ge=0, description="of the diagnosis, at most those of the fits; 0: there is none")
    experiments: tuple[PlannedExperiment, ...] = Field(min_length=1)
    checks: tuple[PlannedCheck, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _rate_is_a_change(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("learning_rate") is None:
            return values
        changes = values.get("recipe_changes", {})
        if not isinstance(changes, dict) or "learning_rate" in changes:
            raise ValueError("learning_rate is given, and recipe_changes too; write it in one of them")
        rate = {"learning_rate": values["learning_rate"]}
        return values | {"learning_rate": None, "recipe_changes": changes | rate}

    @field_validator("experiments", "checks", mode="before")
    @classmethod
    def _spelled_out(cls, values: Any) -> Any:
        return [each for value in values for each in spell_out(value)] if isinstance(values, (list, tuple)) else values

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


def spell_out(settings: Any, names: Collection[str] | None = None) -> list[Any]:
    """Settings of which some are lists -> settings with each combination of their values, the last list fastest.

    Args:
        settings: what a user gave: a mapping, or anything else, which is left alone.
        names: settings that may be lists; all unless given.

    Raises:
        InputError: an empty list, a value twice or one that is no single value, or far too many combinations.
    """
    if not isinstance(settings, Mapping):
        return [settings]
    lists = {
        name: _values(name, value) if names is None or name in names else [value] for name, value in settings.items()
    }
    number = math.prod(map(len, lists.values()))
    if number > MAX_COMBINATIONS:
        raise InputError(f"the lists of values make {number:,} combinations; give at most {MAX_COMBINATIONS:,}")
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def _values(name: object, given: Any) -> list[Any]:
    """One value or a list of them, as a list."""
    if not isinstance(given, (list, tuple)):
        return [given]
    if not given:
        raise InputError(f"the list for {quote(name)} is empty; give it at least one value")
    if len(given) > MAX_COMBINATIONS:
        raise InputError(f"the list for {quote(name)} has {len(given):,} values; give at most {MAX_COMBINATIONS:,}")
    for index, value in enumerate(given):
        if value is None or isinstance(value, (list, tuple, dict)):
            raise InputError(f"{quote(name)} = {quote(value)} is no single value; write numbers or texts into its list")
        if value in given[:index]:
            raise InputError(f"{quote(name)} has the value {quote(value)} twice; name each once")
    return list(given)


@dataclass(frozen=True)
class Sweep:
    """One plan or several, which differ in what is a list among ``CHOICES``.

    Args:
        settings: of a plan; those in ``CHOICES`` may be lists.

    Attributes:
        plans: by what tells each from the others, e.g. ``tuned-test3``; the name of a single plan is empty. A check on
            a plan's own test fold is left out where there are several test folds.
        marks: the parts of those names, e.g. ``{"recipe": "tuned", "test_fold": "test3"}``.

    Raises:
        InputError: an unknown or impossible setting.
    """

    settings: dict[str, Any]
    plans: dict[str, Plan] = field(init=False)
    marks: list[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        plans: dict[str, Plan] = {}
        marks: list[dict[str, str]] = []
        for values in spell_out(self.settings, CHOICES):
            if "test_fold" in self._lists:
                values["checks"] = _checks_elsewhere(values)
            marks.append(self._marks(values))
            name = "-".join(marks[-1].values())
            if name in plans:
                raise InputError(f"plan: {name} is meant twice; name each value once")
            plans[name] = Plan(**values)
        object.__setattr__(self, "plans", plans)
        object.__setattr__(self, "marks", marks)

    @property
    def _lists(self) -> dict[str, list[Any]]:
        """The settings that the plans differ in, with their values."""
        lists = {name: _values(name, self.settings[name]) for name in CHOICES if name in self.settings}
        return {name: values for name, values in lists.items() if len(values) > 1}

    def _marks(self, values: Mapping[str, Any]) -> dict[str, str]:
        """What tells a plan with these values from the others."""
        marks = {name: str(values[name]) for name in self._lists}
        if "dataset" in marks:
            folders = Counter(Path(str(each)).name for each in self._lists["dataset"])
            folder = Path(marks["dataset"]).name
            marks["dataset"] = folder if folder and folders[folder] == 1 else marks["dataset"]
        if "learning_rate" in marks:
            marks["learning_rate"] = f"rate{marks['learning_rate']}"
        if "test_fold" in marks:
            marks["test_fold"] = f"test{marks['test_fold']}"
        return marks

    def changed(self, **changes: Any) -> Sweep:
        """The sweep with other settings; a change to None is none. A check on a new test fold is left out."""
        values = self.settings | {key: value for key, value in changes.items() if value is not None}
        if changes.get("test_fold") is not None and "checks" not in changes:
            values["checks"] = _checks_elsewhere(values)
        return Sweep(values)

    def only(self, source: str | Path) -> Plan:
        """The one plan that there is.

        Args:
            source: what the user gave, for the message.

        Raises:
            InputError: there are several.
        """
        if len(self.plans) > 1:
            names = list(self.plans)
            others = ", ".join(names[1:4]) + (", ..." if len(names) > 4 else "")
            raise InputError(
                f"{source} describes {len(names)} plans; choose one of them with --plan {source}:{names[0]} "
                f"(or, after the colon, {others})"
            )
        return next(iter(self.plans.values()))


def _checks_elsewhere(values: Mapping[str, Any]) -> Any:
    """A plan's checks without those on its own test fold."""
    checks = values.get("checks", ())
    if not isinstance(checks, (list, tuple)):
        return checks  # Plan says what is wrong with it
    spelled = [each for check in checks for each in spell_out(check)]
    return [each for each in spelled if not isinstance(each, dict) or each.get("test_fold") != values["test_fold"]]


def load_plan(name_or_path: str | Path) -> Plan:
    """Read a plan by its name (``demo``, ``full``) or from a YAML file, as :func:`load_sweep` does.

    Raises:
        InputError: as there, or several plans of which none is chosen.
    """
    return load_sweep(name_or_path).only(name_or_path)


def load_sweep(name_or_path: str | Path) -> Sweep:
    """Read the plans that a name (``demo``, ``full``) or a YAML file stands for.

    A data set given in the file as a relative path (``./recordings``) is looked for beside the file. With a colon and
    the name of one of its plans behind it (``mine.yaml:tuned-test3``) a file stands for that plan alone.

    Raises:
        InputError: no such plan, unreadable YAML, unknown or impossible settings.
    """
    given, name = _split_name(name_or_path)
    path = _plan_file(given)
    values = {"name": path.stem} | read_settings(path, "plan")
    try:
        sweep = Sweep(values)
        dataset = values.get("dataset")
        if isinstance(dataset, list):
            sweep = sweep.changed(dataset=[resolve_dataset(each, path.parent) for each in dataset])
        elif dataset is not None:
            sweep = sweep.changed(dataset=resolve_dataset(dataset, path.parent))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if name is None:
        return sweep
    if name not in sweep.plans:
        known = [each for each in sweep.plans if each]
        remedy = f"choose one of {', '.join(known)}" if known else "it has one plan only, so leave the colon out"
        raise InputError(f"{path} has no plan {quote(name)}; {remedy}")
    return as_sweep(sweep.plans[name])


def as_sweep(plan: Plan | Sweep) -> Sweep:
    """A plan as a sweep of that plan alone."""
    return plan if isinstance(plan, Sweep) else Sweep(plan.model_dump(mode="json", exclude_none=True))


def absolute_plan(name_or_path: str) -> str:
    """A plan's name as it is, a file's path as an absolute one, since notebooks may run in other folders."""
    given, name = _split_name(name_or_path)
    place = str(Path(given).resolve()) if Path(given).suffix in (".yaml", ".yml") else str(given)
    return place if name is None else f"{place}:{name}"


def _split_name(name_or_path: str | Path) -> tuple[str | Path, str | None]:
    """``mine.yaml:tuned`` -> ``mine.yaml`` and ``tuned``."""
    match = ONE_OF_A_SWEEP.fullmatch(str(name_or_path))
    if match is None or user_path(name_or_path).is_file():
        return name_or_path, None
    return match["plan"], match["name"]


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


def save_plan(plan: Plan | Sweep, path: Path | str) -> None:
    """Write a plan or a sweep as YAML, so that it can be loaded again; the file is replaced as a whole.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    sweep = as_sweep(plan)
    several = len(sweep.plans) > 1
    text = yaml.safe_dump(sweep.settings if several else as_sweep(sweep.only(path)).settings, sort_keys=False)
    with explained(path, "choose another folder", fault="cannot write plan"):
        replace_file(path, text.encode())


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
