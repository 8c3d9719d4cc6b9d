"""Which experiments a suite runs: a plan, read from a small YAML file.

The plans that come with the project are ``workflow/plans/<name>.yaml``. A file whose ``dataset`` is a list holds one
plan for each data set; any other list stands for one experiment per value.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from audioclf_lib._support.choices import DeviceName, LogName
from audioclf_lib._support.errors import InputError, quote, refuse_control_characters
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT, explained, folder_of, replace_file, user_path
from audioclf_lib.config import MAX_THREADS, Experiment, StrictModel

PLANS_DIR = folder_of("workflow/plans")
DATASET_NAMES = ("demo", "esc10")  # a folder of such a name is given as ./demo
# Settings of the plan that an experiment may have for itself.
SHARED = ("epochs", "recipe", "recipe_changes", "test_fold")
# Settings of all experiments of a suite.
NOT_IN_A_PLAN = ("dataset", "device", "runs_dir", "threads", "log", "val_folds")
MAX_COMBINATIONS = 1000  # of the values in lists


class Ablation(StrictModel):
    """How long the recipe as written is trained with one change at a time, see :mod:`audioclf_lib.suite.ablation`."""

    epochs: int = Field(10, ge=1, le=100_000)
    seeds: tuple[int, ...] = Field((0,), min_length=1)


class Plan(StrictModel):
    """The experiments of a suite and what they have in common; see ``Experiment`` for the settings.

    Attributes:
        epochs, recipe, recipe_changes, test_fold: of every experiment that does not have its own. A list stands for
            one experiment with each of its values.
        learning_rate: a short way to give the recipe change of that name, which is where it goes.
        seeds: one experiment for each, unless the experiment has a ``seed`` of its own.
        threads: processor threads that train a fit.
        log: where epochs and final figures are logged: ``tensorboard`` or ``wandb``.
        spread_folds: run every fit of a k-fold experiment as a notebook of its own first, so that they can run at once.
        ablation: the recipe as written with one change at a time; None: there is none.
        contrasts: pairs of architectures, by their labels (``[cnn, transformer-h2]``), whose difference is tested;
            Holm's correction is over these, and no other pair is tested.
        experiments: ``model`` and ``protocol``, the architecture's settings, and those that differ from the plan's.

    Raises:
        InputError: an unknown setting, or one that is impossible for an experiment of the plan.
    """

    name: str = Field(min_length=1)
    dataset: str = "demo"
    epochs: Any = 100
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    recipe: Any = "tuned"
    recipe_changes: Any = Field(default_factory=dict)
    learning_rate: None = None
    test_fold: Any = 1
    threads: int = Field(1, ge=1, le=MAX_THREADS)
    log: LogName = "none"
    spread_folds: bool = False
    ablation: Ablation | None = None
    contrasts: tuple[tuple[str, str], ...] = ()
    experiments: tuple[dict[str, Any], ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _rates_are_changes(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("learning_rate") is None:
            return values
        changes = _values(values, "recipe_changes") if "recipe_changes" in values else [{}]
        if any(not isinstance(each, dict) or "learning_rate" in each for each in changes):
            raise ValueError("learning_rate is given, and recipe_changes too; write it in one of them")
        both = [each | {"learning_rate": rate} for each in changes for rate in _values(values, "learning_rate")]
        return values | {"learning_rate": None, "recipe_changes": both if len(both) > 1 else both[0]}

    @model_validator(mode="after")
    def _possible(self) -> Plan:
        refuse_control_characters("the plan's name", self.name)
        for name in NOT_IN_A_PLAN:
            if any(name in settings for settings in self.experiments):
                raise ValueError(f"{name} is no setting of one experiment of a plan; take it out")
        spelled = [each for settings in self.experiments for each in _spell_out(settings)]
        _refuse_repeated(spelled, "experiments")
        _refuse_repeated(self.seeds, "seeds")
        known = list(dict.fromkeys(each.label for each in self.experiments_list()))  # rejects what cannot be run
        for pair in self.contrasts:
            for label in pair:
                if label not in known:
                    raise ValueError(f"contrasts name {quote(label)}; architectures of the plan are {', '.join(known)}")
            if pair[0] == pair[1]:
                raise ValueError(f"a contrast of {pair[0]} with itself is none; name two architectures")
        _refuse_repeated([sorted(pair) for pair in self.contrasts], "contrasts")
        return self

    def changed(self, recipe_changes: Mapping[str, Any] | str | None = None, **changes: Any) -> Plan:
        """The plan with other settings; a change to None is none.

        Args:
            recipe_changes: added to those of the plan and of its experiments; may be a JSON object as text.
            changes: take the place of the plan's and of the experiments' own settings, but for an experiment's test
                fold.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        replaced = {"seed" if name == "seeds" else name for name in given} - {"test_fold"}
        own = [{name: value for name, value in each.items() if name not in replaced} for each in self.experiments]
        values = self.model_dump() | given
        if "experiments" not in given:
            values["experiments"] = _unique(own)
        if recipe_changes is not None:
            checked: dict[str, Any] = {"model": "cnn", "recipe_changes": recipe_changes}
            added = Experiment(**checked).recipe_changes
            for settings in [values, *values["experiments"]]:
                if "recipe_changes" in settings:
                    before = _values(settings, "recipe_changes")
                    settings["recipe_changes"] = _unique([each | added for each in before])
        return Plan(**values)

    def experiments_list(
        self, device: DeviceName = "auto", runs_dir: Path | str = DEFAULT_RUNS_DIR
    ) -> list[Experiment]:
        """The experiments on the plan's test folds: those of each seed in the plan's order."""
        return [each for each, is_check in self._all_experiments(device, runs_dir) if not is_check]

    def checks_list(self, device: DeviceName = "auto", runs_dir: Path | str = DEFAULT_RUNS_DIR) -> list[Experiment]:
        """The experiments on test folds of their own: they show whether the recipe was fitted to the plan's."""
        return [each for each, is_check in self._all_experiments(device, runs_dir) if is_check]

    def _all_experiments(self, device: DeviceName, runs_dir: Path | str) -> list[tuple[Experiment, bool]]:
        """Every experiment once, and True if it is a check."""
        fixed = self.model_dump(include={"dataset", "threads", "log"}) | {"device": device, "runs_dir": runs_dir}
        folds = _values(self.model_dump(), "test_fold")
        found: dict[str, Experiment] = {}
        for seed in self.seeds:
            for shared in _spell_out({name: getattr(self, name) for name in SHARED}):
                for settings in self.experiments:
                    for own in _spell_out(settings):
                        experiment = Experiment(**{"seed": seed} | shared | own | fixed)
                        found.setdefault(experiment.model_dump_json(), experiment)
        return [(each, each.protocol != "rotation" and each.test_fold not in folds) for each in found.values()]


def _unique(values: Sequence[Any]) -> list[Any]:
    return [value for index, value in enumerate(values) if value not in values[:index]]


def _spell_out(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings of which some are lists -> settings with each combination of their values, the last list fastest.

    Raises:
        InputError: an empty list, a value twice, or far too many combinations.
    """
    lists = [_values(settings, name) for name in settings]
    number = math.prod(map(len, lists))
    if number > MAX_COMBINATIONS:
        raise InputError(f"the lists of values make {number:,} combinations; give at most {MAX_COMBINATIONS:,}")
    return [dict(zip(settings, values, strict=True)) for values in product(*lists)]


def _values(settings: Mapping[str, Any], name: str) -> list[Any]:
    """The value of a setting or the list of its values, as a list."""
    given = settings[name]
    values = list(given) if isinstance(given, (list, tuple)) else [given]
    if not values:
        raise InputError(f"the list for {quote(name)} is empty; give it at least one value")
    _refuse_repeated(values[: MAX_COMBINATIONS + 1], name)
    return values


def _refuse_repeated(values: Sequence[Any], name: str) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise InputError(f"{quote(value)} is named twice in {quote(name)}; name each once")


def distinctions(experiments: Sequence[Experiment]) -> list[str]:
    """What tells each experiment from those of the same name: ``8 epochs``; empty where nothing does."""
    epochs: dict[str, set[int]] = {}
    for each in experiments:
        epochs.setdefault(each.full_name, set()).add(each.epochs)
    return [f"{each.epochs} epochs" if len(epochs[each.full_name]) > 1 else "" for each in experiments]


def load_plans(name_or_path: str | Path) -> list[Plan]:
    """Read the plans that a name (``demo``, ``full``) or a YAML file stands for: one for each of its data sets.

    Data sets and models given in the file as relative paths (``./recordings``, ``my_net.py``) are looked for beside the
    file.

    Raises:
        InputError: no such plan, unreadable YAML, unknown or impossible settings.
    """
    path = settings_file(name_or_path, PLANS_DIR, "plan")
    values = {"name": path.stem} | read_settings(path, "plan")
    try:
        given = _values(values, "dataset") if "dataset" in values else ["demo"]
        datasets = [resolve_dataset(each, path.parent) if isinstance(each, str) else each for each in given]
        _refuse_repeated(datasets, "dataset")
        experiments = values.get("experiments")
        for settings in experiments if isinstance(experiments, list) else []:
            if isinstance(settings, dict) and "model" in settings:
                settings["model"] = resolve_model(settings["model"], path.parent)
        return [Plan(**values | {"dataset": dataset}) for dataset in datasets]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def load_plan(name_or_path: str | Path, dataset: str | None = None) -> Plan:
    """Read a plan as :func:`load_plans` does, for one data set.

    Args:
        name_or_path: of the plan.
        dataset: takes the place of the plan's; of several it is the one of that name or path.

    Raises:
        InputError: as there, or several data sets of which none is chosen.
    """
    plans = load_plans(name_or_path)
    if dataset is not None:
        chosen = [plan for plan in plans if dataset in (plan.dataset, Path(plan.dataset).name)]
        return chosen[0] if chosen else plans[0].changed(dataset=resolve_dataset(dataset))
    if len(plans) > 1:
        names = ", ".join(plan.dataset for plan in plans)
        raise InputError(f"plan {name_or_path} has several data sets ({names}); choose one of them with --dataset")
    return plans[0]


def resolve_model(spec: Any, base: Path | None = None) -> Any:
    """The file of a model, or of each in a list, as an absolute path: notebooks may run elsewhere; a name as it is."""
    if isinstance(spec, list):
        return [resolve_model(each, base) for each in spec]
    path, colon, name = str(spec).partition(".py:")
    if not colon and not str(spec).endswith(".py"):
        return spec
    file = user_path((base or Path.cwd()) / user_path(path.removesuffix(".py") + ".py"))
    return f"{file.resolve()}{colon[3:]}{name}"


def _relative_model(spec: Any, base: Path) -> Any:
    """What ``resolve_model`` resolves, for a file in the project; another file, and a name, as it is."""
    if isinstance(spec, list):
        return [_relative_model(each, base) for each in spec]
    return Path(os.path.relpath(spec, base)).as_posix() if Path(spec).is_relative_to(PROJECT_ROOT) else spec


def absolute_plan(name_or_path: str) -> str:
    """A plan's name as it is, a file's path as an absolute one, since notebooks may run in other folders."""
    is_file = Path(name_or_path).suffix in (".yaml", ".yml")
    return str(user_path(name_or_path).resolve()) if is_file else name_or_path


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


def save_plan(plans: Plan | Sequence[Plan], path: Path | str) -> None:
    """Write a plan, or several that differ in their data set, as YAML that can be loaded again.

    A model's file in the same project is named relative to the plan, so that a project can be moved and published.

    Raises:
        InputError: the file cannot be written.
    """
    plans, folder = [plans] if isinstance(plans, Plan) else plans, Path(path).absolute().parent
    values = plans[0].model_dump(mode="json", exclude_none=True)
    for settings in values["experiments"] if folder.is_relative_to(PROJECT_ROOT) else []:
        settings["model"] = _relative_model(settings["model"], folder)
    if len(plans) > 1:
        values["dataset"] = [plan.dataset for plan in plans]
    with explained(Path(path), "choose another folder", fault="cannot write plan"):
        replace_file(Path(path), yaml.safe_dump(values, sort_keys=False).encode())


def resolve_dataset(name_or_path: str, base: Path | None = None) -> str:
    """A folder or file as an absolute path, since notebooks may run in other working directories; a name as it is."""
    folder = user_path((base or Path.cwd()) / user_path(name_or_path))
    bare = Path(str(folder).rsplit(":", 1)[0])  # without an option such as :esc10 or :4s
    is_there = folder.exists() or bare.exists()
    is_name = name_or_path in DATASET_NAMES or (Path(name_or_path).name == name_or_path and not is_there)
    return name_or_path if is_name else str(folder.resolve())


def settings_file(name_or_path: str | Path, folder: Path, what: str) -> Path:
    """The YAML file of that name in a folder of the project, or of that path.

    Raises:
        InputError: there is none.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    path = known.get(str(name_or_path)) or user_path(name_or_path).resolve()
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        remedy = f"choose one of {', '.join(known)}, or give a .yaml file (check the path)"
        raise InputError(f"there is no {what} {quote(str(name_or_path))}; {remedy}")
    return path


def last_plan_path(runs_dir: Path | str) -> Path:
    """Where a suite leaves the plan that it ran."""
    return Path(runs_dir) / "plan.yaml"
