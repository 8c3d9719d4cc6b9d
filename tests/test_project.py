"""The project's own files agree with each other."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from conftest import PROJECT_ROOT

PROJECT: dict[str, Any] = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS: list[str] = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))


def name_of(requirement: str) -> str:
    """``PyYAML>=6`` -> ``pyyaml``."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~ ;\[]", requirement)[0]).lower()


def test_conda_and_pip_install_the_same() -> None:
    environment = yaml.safe_load((PROJECT_ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python {PROJECT['requires-python']}", "pip"]
    assert pip["pip"] == [*REQUIREMENTS, "-e ."]


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.lock", REQUIREMENTS),
        ("benchmarks/requirements.lock", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["bench"]),
    ],
)
def test_locks_pin_everything_with_hashes_and_name_no_address(lock: str, requirements: list[str]) -> None:
    text = (PROJECT_ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=sha256:)", text, re.MULTILINE), "no option but hashes"
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if entry.strip()]
    pinned = set()
    for entry in entries:
        assert re.match(r"[\w.\-]+==\S+", entry), entry.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry.splitlines()[0]
        pinned.add(name_of(entry))
    assert {name_of(requirement) for requirement in requirements} <= pinned


def test_torch_and_torchaudio_are_one_pair() -> None:
    versions = {name_of(item): item.split("==")[1] for item in REQUIREMENTS if name_of(item).startswith("torch")}
    assert versions["torch"] == versions["torchaudio"]


@pytest.mark.parametrize(
    "target", ["help", "setup", "report", "test", "bench", "audit", "lab", "clean", "lock", "system-packages"]
)
def test_make_has_the_target_and_help_explains_it(target: str) -> None:
    def make(*arguments: str) -> str:
        command = ["make", "--no-print-directory", "-C", str(PROJECT_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert re.search(rf"^  make {target} +\w", make("help"), re.MULTILINE)
    assert make("--dry-run", target)


def test_make_passes_the_users_choice_on() -> None:
    command = ["make", "-n", "-C", str(PROJECT_ROOT), "report", "DATASET=/my data", "PLAN=full", "EPOCHS=3"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 'suite --plan "full" --dataset "/my data" --epochs "3"' in shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean_and_name_our_kernel(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.metadata.kernelspec.name == "audioclf"
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert notebook.cells[0].cell_type == "markdown"
    defined = re.compile(r"^\s*class " if path.stem in ("02_from_scratch", "50_explore") else r"^\s*(def|class) ", re.M)
    assert not any(defined.search(cell.source) for cell in code)
    assert max(len(cell.source.splitlines()) for cell in code) <= 15


def test_the_readme_tells_the_measured_speed() -> None:
    results = json.loads((PROJECT_ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    for model in ("cnn", "transformer"):
        train = results[model]["train"]
        for name in ("ours", "eager", "torch.compile", "Lightning"):
            assert f" {train[name]['median']:.1f} |" in readme
        assert f"{train['ratio_vs_eager']:.1f} times" in readme
    assert results["machine"]["processor"] in readme
