"""Where a suite can run, and what is said where it cannot."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from archives import Server
from conftest import PROJECT_ROOT

from audioclf_lib._support.errors import InputError
from audioclf_lib.suite.engine import EXTRAS, PROFILES_DIR, check_executor, find_profile

COMMON = ("scheduler", "keep-going", "ignore-incomplete", "nolock", "rerun-triggers")


def settings(name: str) -> dict[str, Any]:
    return yaml.safe_load((PROFILES_DIR / name / "config.yaml").read_text())


def own_profile(folder: Path, text: str) -> str:
    (folder / "config.yaml").write_text(text)
    return str(folder)


@pytest.mark.parametrize("name", ["slurm", "dask"])
def test_what_holds_for_every_suite_is_in_every_profile(name: str) -> None:
    laptop, other = settings("laptop"), settings(name)
    assert {key: other[key] for key in COMMON} == {key: laptop[key] for key in COMMON}


@pytest.mark.parametrize(("name", "executor"), [("laptop", "local"), ("slurm", "slurm"), ("dask", "cluster-sync")])
def test_profiles_are_found_by_name(name: str, executor: str) -> None:
    folder, found = find_profile(name)
    assert (folder, found["executor"]) == (PROFILES_DIR / name, executor)


def test_a_profile_of_the_users_own_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    own_profile(tmp_path / "mine", "executor: slurm\n")
    assert find_profile("mine")[1]["executor"] == "slurm"
    assert find_profile(str(tmp_path / "mine"))[0] == tmp_path / "mine"


@pytest.mark.parametrize(
    ("text", "reason"),
    [("executor: [", "not valid YAML"), ("- slurm", "holds no settings"), ("", "holds no settings")],
)
def test_a_damaged_profile_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"profile .*config\.yaml.*{reason}"):
        find_profile(own_profile(tmp_path, text))


def test_slurm_needs_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch on this machine"):
        check_executor(find_profile("slurm")[1])


@pytest.mark.parametrize("address", [None, "tcp://127.0.0.1:1", "127.0.0.1:port", "tcp://no-such-host.invalid:1"])
def test_dask_needs_the_address_of_a_scheduler_that_answers(address: str | None) -> None:
    with (
        dask.config.set({"scheduler-address": address}),
        pytest.raises(InputError, match=r"no Dask scheduler answers at .*; start one, and set DASK_SCHEDULER_ADDRESS"),
    ):
        check_executor(find_profile("dask")[1])


def test_a_scheduler_that_answers_will_do(serve: Callable[..., Server]) -> None:
    address = serve(b"").url.removeprefix("http://").partition("/")[0]
    with dask.config.set({"scheduler-address": f"tcp://{address}"}):
        check_executor(find_profile("dask")[1])


@pytest.mark.parametrize(("name", "extra"), [("laptop", "suite"), ("slurm", "slurm"), ("dask", "dask")])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=rf"pip install 'audioclf\[{extra}\]'"):
        check_executor(find_profile(name)[1])


def test_another_executor_is_named_by_its_package() -> None:
    with pytest.raises(InputError, match="pip install snakemake-executor-plugin-some-cloud"):
        check_executor({"executor": "some-cloud"})


def test_all_has_every_extra_that_a_profile_needs() -> None:
    extras = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for remedy in EXTRAS.values():
        (extra,) = re.findall(r"\[(\w+)\]", remedy)
        assert any(f"audioclf[{extra}]" in name for name in extras["all"])
