"""The project's own files agree with each other."""

from __future__ import annotations

import ast
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
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
OURS = re.compile(r"audioclf\[(\w+)\]")
DOCS = sorted((PROJECT_ROOT / "docs").glob("*.md"))
NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))


def spelled_out(requirements: list[str]) -> list[str]:
    """Requirements with those of our own extras in their place."""
    found = []
    for requirement in requirements:
        ours = OURS.fullmatch(requirement)
        found += spelled_out(EXTRAS[ours[1]]) if ours else [requirement]
    return found


REQUIREMENTS: list[str] = PROJECT["dependencies"] + spelled_out(EXTRAS["dev"])


def name_of(requirement: str) -> str:
    """``PyYAML>=6`` -> ``pyyaml``."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~ ;\[]", requirement)[0]).lower()


def test_conda_has_its_packages_from_pip() -> None:
    environment = yaml.safe_load((PROJECT_ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python {PROJECT['requires-python']}", "pip"]
    assert pip["pip"] == ["-e .[dev]"]


def test_all_is_every_extra_of_users_and_dev_has_all() -> None:
    users = set(EXTRAS) - {"all", "dev", "bench"}
    assert {extra for requirement in EXTRAS["all"] for extra in OURS.findall(requirement)} == users
    assert "audioclf[all]" in EXTRAS["dev"]


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.lock", REQUIREMENTS),
        ("benchmarks/requirements.lock", PROJECT["dependencies"] + EXTRAS["bench"]),
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


def test_the_lock_has_one_pair_of_torch_and_torchaudio_and_users_have_theirs() -> None:
    pinned = [item for item in EXTRAS["dev"] if item.startswith("torch")]
    assert len({item.partition("==")[2] for item in pinned}) == 1 and len(pinned) == 2
    locked = (PROJECT_ROOT / "requirements.lock").read_text()
    assert all(f"\n{item} " in f"\n{locked}" for item in pinned)
    assert [item for item in PROJECT["dependencies"] if "torch" in item] == ["torch>=2.6", "torchaudio>=2.6"]


@pytest.mark.parametrize(
    "target", ["help", "setup", "report", "test", "bench", "audit", "wheel", "lab", "clean", "lock", "system-packages"]
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
def test_notebooks_are_clean_and_name_the_kernel_that_every_environment_has(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert notebook.cells[0].cell_type == "markdown"
    defined = re.compile(r"^\s*class " if path.stem in ("02_from_scratch", "50_explore") else r"^\s*(def|class) ", re.M)
    assert not any(defined.search(cell.source) for cell in code)
    others = [cell for cell in code if "parameters" not in cell.metadata.get("tags", [])]
    assert max(len(cell.source.splitlines()) for cell in others) <= 15


def test_the_measured_speed_is_told() -> None:
    results = json.loads((PROJECT_ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    page = (PROJECT_ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for model in ("cnn", "transformer"):
        train = results[model]["train"]
        for name in ("ours", "eager", "torch.compile", "Lightning"):
            assert f" {train[name]['median']:.1f} |" in page
        assert f"{train['ratio_vs_eager']:.1f} times" in page
    assert results["machine"]["processor"] in page


PAGES = ["README.md", "SECURITY.md", "data/README.md", *(f"docs/{path.name}" for path in DOCS)]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = PROJECT_ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        file, _, section = target.partition("#")
        if "://" in target or not file:
            continue
        found = path.parent / file
        assert found.exists(), target
        titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.M) if section else []
        assert not section or section in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


def test_readme_is_short_and_leads_to_every_page() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    assert all(f"](docs/{path.name})" in readme for path in DOCS)


def test_the_commands_of_the_readme_exist() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z]+)", readme, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for extra in re.findall(r"audioclf\[([a-z]+)\]|\[([a-z]+)\](?=[,:]| alone)", readme):
        assert "".join(extra) in EXTRAS, extra


def test_the_readmes_python_is_python() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block)
