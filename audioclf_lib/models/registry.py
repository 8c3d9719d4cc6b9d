"""The architectures by name: the two of the assignment, and any that a file of the user registers.

An own architecture is a class in one file::

    @register_model("my-net", title="My net", tuned={"learning_rate": 1e-3})
    class MyNet(nn.Module):
        def __init__(self, num_classes: int, width: int = 64, dropout: float = 0.2) -> None: ...

Names and titles are known without torch, which is loaded with the class. Keyword arguments of ``__init__`` are the
architecture's settings, checked by name and type; those that are also settings of the recipe (``dropout``,
``activation``) come from there.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from inspect import Parameter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from audioclf_lib._support.errors import InputError, plain_reason, quote
from audioclf_lib._support.paths import folder_of, user_path
from audioclf_lib.models.digest import source_digest

if TYPE_CHECKING:
    from torch import nn

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
RECIPE_SETTINGS = ("dropout", "activation")  # arguments of __init__ that the recipe gives
OWN_FOLDER = folder_of("examples")  # files in it are found by the names that they register
_Class = TypeVar("_Class", bound=type)


@dataclass(frozen=True, eq=False)
class ModelEntry:
    """What is known of an architecture.

    Attributes:
        name: that it is registered under.
        title: for headings.
        tuned: settings of the recipe ``tuned`` that suit it.
        source: the file that defines it.
        class_name: of the module in that file.
        arguments: every argument of its ``__init__`` but ``num_classes``: its type, as an annotation, and its default.
        is_own: True if it is not one of the two assigned architectures.
        shown: settings that titles and labels name even where they have their default.
        text: what the file of an own architecture held when the class was made; empty for a class in a notebook's cell.
        cls: the class of an own architecture.
    """

    name: str
    title: str
    source: Path
    class_name: str
    arguments: Mapping[str, Parameter]
    tuned: Mapping[str, Any] = field(default_factory=dict)
    is_own: bool = True
    shown: tuple[str, ...] = ()
    text: str = ""
    cls: type[nn.Module] | None = None

    def load(self) -> type[nn.Module]:
        """The class; loads torch."""
        module = f"audioclf_lib.models.{self.source.stem}"
        return self.cls or getattr(import_module(module), self.class_name)

    @cached_property
    def digest(self) -> str:
        """Changes with what the class computes, see :func:`audioclf_lib.models.digest.source_digest`.

        Raises:
            InputError: the class stands in no file.
        """
        text = self.text if self.is_own else self.source.read_text(encoding="utf-8")
        if not text:
            raise InputError(f"model {self.name} is defined in no file; move its class from the notebook to a .py file")
        return source_digest(text, self.class_name)

    @property
    def description(self) -> str:
        """The docstring of the class, Markdown; loads torch."""
        return inspect.cleandoc(self.load().__doc__ or "")

    @property
    def setting_names(self) -> list[str]:
        """Settings that the user gives: the arguments without those that the recipe gives."""
        return [name for name in self.arguments if name not in RECIPE_SETTINGS]

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of the architecture: those given, checked, and the defaults of the others.

        Raises:
            InputError: an unknown setting, a value of the wrong type, or one that is missing.
        """
        for name in given:
            if name not in self.setting_names:
                known = ", ".join(self.setting_names) or "none"
                raise InputError(f"model {self.name} has no setting {quote(name)}; its settings are: {known}")
        checked: dict[str, Any] = {}
        for name in self.setting_names:
            setting = self.arguments[name]
            value = given.get(name, setting.default)
            if value is Parameter.empty:
                raise InputError(f"model {self.name} needs the setting {name}; give it a value")
            checked[name] = _checked(self.name, name, setting.annotation, value) if name in given else value
        return checked

    def create(self, *, num_classes: int = 10, **settings: Any) -> nn.Module:
        """Make a freshly initialised model; see :func:`create_model`."""
        of_recipe = {key: settings.pop(key) for key in RECIPE_SETTINGS if key in settings and key in self.arguments}
        checked = self.settings(settings)
        model = self.load()(num_classes=num_classes, **checked, **of_recipe)
        _refuse_other_weights(model, made_with(self, num_classes, checked, of_recipe))
        return model

    def create_for(self, recipe: object, *, num_classes: int, **settings: Any) -> nn.Module:
        """Make a model with those settings of a recipe that it takes, such as dropout."""
        taken = [name for name in RECIPE_SETTINGS if name in self.arguments]
        return self.create(num_classes=num_classes, **settings, **{name: getattr(recipe, name) for name in taken})

    def label(self, settings: Mapping[str, Any]) -> str:
        """Name with the settings that are not the defaults, for folders: ``cnn``, ``transformer-h4``."""
        return "-".join([self.name, *(_short(name, value) for name, value in self._shown(settings).items())])

    def full_title(self, settings: Mapping[str, Any]) -> str:
        """Title with the settings that are not the defaults: ``Transformer, 4 heads``, ``My net, width 32``."""
        return ", ".join([self.title, *(_in_words(name, value) for name, value in self._shown(settings).items())])

    def _shown(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in settings.items()
            if name in self.shown or value != self.arguments[name].default
        }


def arguments_of(make: Callable[..., Any]) -> dict[str, Parameter]:
    """Every keyword argument of a class or function but ``num_classes``."""
    arguments = inspect.signature(make, eval_str=True).parameters.values()
    keywords = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {each.name: each for each in arguments if each.name != "num_classes" and each.kind in keywords}


def _checked(model: str, name: str, annotation: Any, value: Any) -> Any:
    if isinstance(value, bool) and annotation is not bool:
        raise InputError(f"model {model}: {name} = {value} is not possible; write a number or a text")
    try:
        config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        return TypeAdapter(Any if annotation is Parameter.empty else annotation, config=config).validate_python(value)
    except ValidationError as error:
        reason = plain_reason(error.errors()[0]["msg"])
        raise InputError(f"model {model}: {name} = {quote(value)} is not possible: {reason}") from None


def _short(name: str, value: Any) -> str:
    """``num_heads`` 4 -> ``h4``; ``width`` 32 -> ``width32``."""
    noun = name[4] if name.startswith("num_") else name.replace("_", "-")
    return noun + re.sub(r"[^\w.]+", "-", str(value)).strip("-")


def _in_words(name: str, value: Any) -> str:
    """``num_heads`` 4 -> ``4 heads``; ``width`` 32 -> ``width 32``."""
    if not name.startswith("num_"):
        return f"{name.replace('_', ' ')} {value}"
    noun = name.removeprefix("num_").replace("_", " ")
    return f"{value} {noun.removesuffix('s') if value == 1 else noun}"


# --------------------------------------------------------------------------------------------------- what is registered

_HERE = Path(__file__).parent


def _setting(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


_OF_BASE = {"dropout": _setting("dropout", float, 0.5), "activation": _setting("activation", str, "none")}
_CNN = ModelEntry(
    *("cnn", "CNN", _HERE / "cnn.py", "CNN"),
    arguments=_OF_BASE,
    tuned={"time_pull": 100.0, "tilt_db": 6.0, "companding": 100.0, "dropout": 0.1},
    is_own=False,
)
_TRANSFORMER = ModelEntry(
    *("transformer", "Transformer", _HERE / "conv_transformer.py", "ConvTransformer"),
    arguments={"num_heads": _setting("num_heads", Annotated[int, Field(ge=1, le=250)], 1)} | _OF_BASE,
    tuned={"encoder_lr_scale": 0.1, "weight_decay": 0.1},
    is_own=False,
    shown=("num_heads",),
)
_REGISTRY = {entry.name: entry for entry in (_CNN, _TRANSFORMER)}
ASSIGNED = tuple(_REGISTRY)


def register_model(name: str, *, title: str, tuned: Mapping[str, Any] | None = None) -> Callable[[_Class], _Class]:
    """Class decorator that makes an architecture known; one that has the name already is replaced.

    Args:
        name: lower-case letters, digits and hyphens; part of the names of run folders.
        title: for headings and tables.
        tuned: settings of the recipe ``tuned`` that suit the architecture.

    Raises:
        InputError: a name that is not possible, or one of the assigned architectures.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"a model cannot be named {quote(name)}; use lower-case letters, digits and hyphens")
    if name in ASSIGNED:
        raise InputError(f"the name {name!r} belongs to an architecture of the assignment; choose another one")

    def register(cls: _Class) -> _Class:
        source = Path(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")
        text = source.read_text(encoding="utf-8") if source.suffix == ".py" else ""
        if not re.search(rf"^class {cls.__name__}\b", text, re.MULTILINE):  # a notebook's cell, or inside a function
            text = ""
        what = name, title, source, cls.__name__, arguments_of(cls), dict(tuned or {})
        _REGISTRY[name] = ModelEntry(*what, text=text, cls=cls)
        return cls

    return register


def find_model(spec: str | Path) -> ModelEntry:
    """The architecture that a name, a file, or a file with a name (``my_net.py:my-net``) stands for.

    Args:
        spec: a registered name, or a path; a relative one counts from the working directory.

    Raises:
        InputError: unknown name, no such file, or a file that cannot be imported, registers no model, or several
            of which none is named.
    """
    text = str(spec)
    if file := re.fullmatch(r"(.+?\.py)(?::(.+))?", text, re.DOTALL):
        entry = model_in_file(user_path(Path.cwd() / user_path(file[1])), file[2])
        _REGISTRY[entry.name] = entry
        return entry
    if text not in _REGISTRY and NAME.fullmatch(text):
        _register_examples(text)
    if text not in _REGISTRY:
        raise InputError(
            f"unknown model {quote(text)}; choose one of {', '.join(_REGISTRY)}, or give the path of a .py file that "
            "registers one"
        )
    return _REGISTRY[text]


def _register_examples(name: str) -> None:
    """Import the file of the project's examples whose text registers this name."""
    for file in sorted(OWN_FOLDER.glob("*.py")):
        if re.search(rf"register_model\(\s*[\"']{re.escape(name)}[\"']", file.read_text(encoding="utf-8")):
            _REGISTRY[name] = model_in_file(file, name)


def model_in_file(file: Path, name: str | None = None) -> ModelEntry:
    """The architecture that a file defines; no name stands for another one afterwards.

    Raises:
        InputError: as of :func:`find_model`.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the model's file {file}: {error.strerror}; give the path of a .py file"
        ) from None
    own = _import_models(file.resolve(), content)
    if not own:
        raise InputError(f"{file} registers no model; put @register_model(name, title=...) in front of its class")
    if name is None and len(own) > 1:
        raise InputError(f"{file} registers {', '.join(own)}; name one of them: {file.name}:{next(iter(own))}")
    if name is not None and name not in own:
        raise InputError(f"{file} registers no model {quote(name)}, but {', '.join(own)}; name one of these")
    return own[name or next(iter(own))]


@cache  # by file and content: an edited file is imported anew
def _import_models(file: Path, content: bytes) -> dict[str, ModelEntry]:
    """The models that a file registers when it is imported."""
    before = dict(_REGISTRY)
    module = ModuleType(f"audioclf_model_{hashlib.sha256(content).hexdigest()[:16]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and type hints look their module up
    try:
        exec(compile(content, file, "exec", dont_inherit=True), vars(module))
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"{file} cannot be imported ({type(error).__name__}: {error}); correct it") from None
    else:
        return {name: entry for name, entry in _REGISTRY.items() if before.get(name) is not entry}
    finally:
        _REGISTRY.clear()
        _REGISTRY.update(before)


# ------------------------------------------------------------------------------------------------------ fresh modules


def create_model(name: str | Path, *, num_classes: int = 10, **settings: Any) -> nn.Module:
    """Make a freshly initialised model.

    Args:
        name: a registered name, or the file of an own architecture; see :func:`find_model`.
        num_classes: outputs of the last layer.
        settings: of the architecture, such as ``num_heads=4``, and ``dropout`` and ``activation`` where it has them.

    Returns:
        A module that maps windows (B, 1, 16000) to logits (B, num_classes). It refuses weights of a run that were
        trained with other settings, see ``Run.weights``.

    Raises:
        InputError: unknown name, unknown or impossible setting.
    """
    return find_model(name).create(num_classes=num_classes, **settings)


def made_with(
    entry: ModelEntry, num_classes: int, settings: Mapping[str, Any], of_recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """What must be equal for the weights of one model to mean the same in another; dropout changes no weight."""
    values = {"model": entry.name, "num_classes": num_classes, **settings}
    if "activation" in entry.arguments:
        values["activation"] = of_recipe.get("activation", entry.arguments["activation"].default)
    values |= {"digest": entry.digest} if entry.is_own and entry.text else {}
    return dict(json.loads(json.dumps(values, default=str)))  # as a run folder has them: lists, no tuples


def _refuse_other_weights(model: nn.Module, settings: Mapping[str, Any]) -> None:
    def compare(module: nn.Module, state: Any, prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
        stored = metadata.get("audioclf") or {}
        differing = [name for name in stored if stored[name] != settings.get(name)]
        if differing and not prefix:
            differences = ", ".join(f"{name} = {stored[name]} (not {settings.get(name)})" for name in differing)
            raise InputError(f"these weights were trained with {differences}; make the model alike, or use run.model()")

    model.register_load_state_dict_pre_hook(compare)
