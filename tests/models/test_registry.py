"""Architectures by name and by file: settings checked, titles, digests, and weights that are refused."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from own_models import SOURCE, write_model
from torch import nn

from audioclf_lib._support.errors import InputError
from audioclf_lib.config import Experiment, KnownDataset
from audioclf_lib.models import create_model, find_model, register_model
from audioclf_lib.models.digest import source_digest
from audioclf_lib.models.registry import arguments_of, made_with

DATA = KnownDataset("tiny", "0" * 16, (1, 2, 3), ("hum", "hiss", "click"))
ALL_NAMES = ["cnn", "transformer", "mel-cnn"]


@pytest.mark.parametrize("name", ALL_NAMES)
def test_every_registered_architecture_maps_windows_to_logits(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 1, 16_000)).shape == (2, 3)


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_what_is_known_of_an_assigned_architecture_without_torch_is_what_its_class_says(name: str) -> None:
    entry = find_model(name)
    known, read = entry.arguments, arguments_of(entry.load())
    assert {key: setting.default for key, setting in known.items()} == {key: each.default for key, each in read.items()}
    assert entry.load().__name__ == entry.class_name


def test_a_file_is_all_that_an_own_architecture_needs(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    entry = find_model(path)
    assert (entry.name, entry.title, entry.is_own) == ("my-net", "My net", True)
    assert entry.description == "One convolution, *batch norm* and a mean over time."
    assert create_model(path, num_classes=3, width=4)(torch.zeros(1, 1, 16_000)).shape == (1, 3)
    assert create_model("my-net", num_classes=3).conv.out_channels == 8, "it is known by its name from then on"


def test_an_experiment_takes_the_file_the_file_with_a_name_or_the_name(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    by_file = Experiment(model=path, width=4, protocol="split", recipe_changes={"dropout": 0.1})
    assert (by_file.title, by_file.label, by_file.name) == ("My net, width 4", "my-net-width4", "my-net-width4-split")
    assert (by_file.recipe_settings.learning_rate, by_file.recipe_settings.batch_size) == (0.002, 4)
    fits = {
        Experiment(model=spec, width=4, protocol="split").fits(DATA)[0].fit_id
        for spec in (str(path), f"{path}:my-net", "my-net")
    }
    assert len(fits) == 1
    (fit,) = by_file.fits(DATA)
    assert (fit.model, fit.model_settings, fit.model_title) == ("my-net", {"width": 4}, "My net, width 4")
    assert re.fullmatch(r"my-net-width4-val2-test1-seed0-tuned-e100-[0-9a-f]{8}", fit.fit_id)


def test_the_default_of_a_setting_and_the_same_value_given_are_one_fit(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    assert Experiment(model=path).fits(DATA)[0].fit_id == Experiment(model=path, width=8).fits(DATA)[0].fit_id
    assert Experiment(model=path).label == "my-net"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"depth": 3}, "model my-net has no setting 'depth'; its settings are: width"),
        ({"width": "wide"}, "model my-net: width = 'wide' is not possible: it must be an integer"),
        ({"width": True}, "model my-net: width = True is not possible; write a number or a text"),
    ],
)
def test_settings_are_checked_by_name_and_type(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = write_model(tmp_path)
    with pytest.raises(InputError, match=re.escape(sentence)):
        create_model(path, **settings)


def test_a_setting_without_a_default_must_be_given(tmp_path: Path) -> None:
    path = write_model(tmp_path, SOURCE.replace("width: int = 8, dropout", "width: int, dropout"))
    with pytest.raises(InputError, match="model my-net needs the setting width; give it a value"):
        Experiment(model=path)


SECOND = SOURCE.replace('"my-net", title="My net"', '"other-net", title="Other"').replace("class MyNet", "class Other")

# A file's source, what is asked for, and what the sentence must name.
BAD_FILES: dict[str, tuple[str, str, str]] = {
    "does not import": (
        "import nothing_of_that_name",
        "my_net.py",
        "cannot be imported (ModuleNotFoundError",
    ),
    "is no Python": ("class :", "my_net.py", "cannot be imported (SyntaxError"),
    "registers nothing": ("x = 1", "my_net.py", "registers no model; put @register_model(name, title=...)"),
    "registers two and none is named": (SOURCE + SECOND, "my_net.py", "registers my-net, other-net; name one of them"),
    "registers another than is named": (SOURCE, "my_net.py:net", "registers no model 'net', but my-net"),
    "is not there": ("", "other.py", "cannot read the model's file"),
    "has a name that is not possible": (SOURCE.replace("my-net", "My Net"), "my_net.py", "cannot be named 'My Net'"),
    "takes an assigned name": (
        SOURCE.replace("my-net", "cnn"),
        "my_net.py",
        "belongs to an architecture",
    ),
    "has an impossible tuned recipe": (
        SOURCE.replace('"batch_size": 4', '"batch": 4'),
        "my_net.py",
        "unknown setting 'batch'",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_serve_ends_in_one_sentence(case: str, tmp_path: Path) -> None:
    source, spec, sentence = BAD_FILES[case]
    write_model(tmp_path, source)
    with pytest.raises(InputError, match=re.escape(sentence)) as error:
        Experiment(model=f"{tmp_path}/{spec}")
    assert "\n" not in str(error.value)


def test_one_of_two_models_of_a_file_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = write_model(tmp_path, SOURCE + SECOND)
    assert find_model(f"{path}:other-net").title == "Other"
    assert find_model(f"{path}:my-net").title == "My net"


def test_a_class_that_stands_in_no_file_makes_models_but_no_fits() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(SOURCE.replace("my-net", "cell-net"), namespace)
    assert create_model("cell-net", num_classes=2)(torch.zeros(1, 1, 16_000)).shape == (1, 2)
    with pytest.raises(InputError, match="model cell-net is defined in no file; move its class from the notebook"):
        Experiment(model="cell-net").fits(DATA)


# ------------------------------------------------------------------------------------------------------------- digests

# Changes of the source that leave what is computed, and changes that do not.
HARMLESS = {
    "a comment": ("STRIDE = 8", "STRIDE = 8  # samples"),
    "a docstring": ('"""The last layer."""', '"""The layer that comes last."""'),
    "the class's docstring": ("One convolution", "A convolution"),
    "formatting": ("def head(width: int, num_classes: int)", "def head(\n    width: int,\n    num_classes: int,\n)"),
    "something that the class does not use": ("STRIDE = 8", "STRIDE = 8\nOTHER = 3"),
    "the title and the tuned recipe": (
        'title="My net", tuned={"learning_rate": 0.002',
        'title="N", tuned={"dropout": 0',
    ),
}
MEANT = {
    "a constant": ("STRIDE = 8", "STRIDE = 4"),
    "a function that the class calls": ("nn.Linear(width, num_classes)", "nn.Linear(width, num_classes, bias=False)"),
    "a layer": ("torch.relu", "torch.tanh"),
    "a default": ("width: int = 8", "width: int = 16"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_changes_no_number_leaves_the_digest(case: str) -> None:
    before = source_digest(SOURCE, "MyNet")
    edited = SOURCE.replace(*HARMLESS[case])
    assert edited != SOURCE
    assert source_digest(edited, "MyNet") == before


@pytest.mark.parametrize("case", MEANT)
def test_what_changes_numbers_changes_the_digest_and_the_fit(case: str, tmp_path: Path) -> None:
    path = write_model(tmp_path)
    before = Experiment(model=path).fits(DATA)[0]
    edited = SOURCE.replace(*MEANT[case])
    assert edited != SOURCE
    after = Experiment(model=write_model(tmp_path, edited)).fits(DATA)[0]
    assert before.model_digest != after.model_digest
    assert before.fit_id != after.fit_id


DIGESTED = Path(__file__).parents[1] / "support" / "digested_model.py"
DIGEST = "1cf15423ba5a6522"


def test_a_digest_is_the_same_on_every_python() -> None:
    """The value was computed by Python 3.11; the others that are installed must find it too."""
    assert source_digest(DIGESTED.read_text(encoding="utf-8"), "Digested") == DIGEST
    module = Path(inspect.getfile(source_digest))  # on its own, since another Python has none of our packages
    code = (
        f"import importlib.util as u, pathlib; s = u.spec_from_file_location('digest', {str(module)!r});"
        f"m = u.module_from_spec(s); s.loader.exec_module(m);"
        f"print(m.source_digest(pathlib.Path({str(DIGESTED)!r}).read_text(encoding='utf-8'), 'Digested'))"
    )
    for python in filter(None, map(shutil.which, ("python3.11", "python3.12", "python3.13"))):
        found = subprocess.run([python, "-c", code], capture_output=True, text=True)
        assert found.stdout.strip() == DIGEST or "pyenv" in found.stderr, (python, found.stderr)


def test_what_a_model_takes_from_the_base_of_the_assignment_belongs_to_its_digest() -> None:
    own = "from torch import nn\nclass Own(nn.Module):\n    base = ConvBase\n"
    with_base = f"from audioclf_lib.models.cnn import ConvBase\n{own}"
    assert source_digest(with_base, "Own") != source_digest(own, "Own")


# ------------------------------------------------------------------------------------------------------------- weights


def trained_with(model: str, **settings: Any) -> OrderedDict[str, torch.Tensor]:
    """Weights as a run gives them: with the settings of the model that they belong to."""
    entry = find_model(model)
    of_recipe = {key: settings.pop(key) for key in ("activation", "dropout") if key in settings}
    weights = OrderedDict(create_model(model, **settings, **of_recipe).state_dict())
    weights._metadata = {"": {"audioclf": made_with(entry, 10, entry.settings(settings), of_recipe)}}  # type: ignore[attr-defined]
    return weights


@pytest.mark.parametrize(
    ("weights", "model", "sentence"),
    [
        (("cnn", {"activation": "relu"}), ("cnn", {}), "activation = relu (not none)"),
        (("transformer", {"num_heads": 4}), ("transformer", {"num_heads": 1}), "num_heads = 4 (not 1)"),
    ],
)
def test_weights_of_a_model_with_other_settings_are_refused(
    weights: tuple[str, dict[str, Any]], model: tuple[str, dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(InputError, match=re.escape(f"these weights were trained with {sentence}")):
        create_model(model[0], **model[1]).load_state_dict(trained_with(weights[0], **weights[1]))


def test_weights_of_the_same_model_are_taken_whatever_its_dropout() -> None:
    create_model("cnn", activation="relu", dropout=0.1).load_state_dict(
        trained_with("cnn", activation="relu", dropout=0.5)
    )


def test_weights_without_settings_are_taken_as_torch_takes_them() -> None:
    create_model("cnn").load_state_dict(create_model("cnn").state_dict())


def test_a_decorator_leaves_the_class_as_it_is() -> None:
    class Plain(nn.Module):
        pass

    assert register_model("plain-net", title="Plain")(Plain) is Plain


def test_the_registry_is_known_without_torch() -> None:
    code = "import sys, audioclf_lib; audioclf_lib.register_model; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
