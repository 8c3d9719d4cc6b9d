"""Where a suite can run, and what is said where it cannot."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
import yaml
from archives import Server
from conftest import PROJECT_ROOT
from distributed.core import Server as DaskServer

from audioclf_lib._support.errors import InputError
from audioclf_lib.suite import profiles
from audioclf_lib.suite.profiles import EXTRAS, PROFILES_DIR, find_profile

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
    profile = find_profile(name)
    assert (profile.folder, profile.executor, profile.is_local) == (PROFILES_DIR / name, executor, name == "laptop")


def test_a_profile_of_the_users_own_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    own_profile(tmp_path / "mine", "executor: slurm\n")
    assert find_profile("mine").executor == "slurm"
    assert find_profile(str(tmp_path / "mine")).folder == tmp_path / "mine"


@pytest.mark.parametrize(
    ("text", "reason"), [("executor: [", "cannot be read"), ("- slurm", "holds no settings"), ("", "holds no settings")]
)
def test_a_damaged_profile_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        find_profile(own_profile(tmp_path, text))


def test_slurm_needs_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch on this machine"):
        find_profile("slurm").check()


def test_dask_needs_an_address() -> None:
    with dask.config.set({"scheduler-address": None}), pytest.raises(InputError, match="set DASK_SCHEDULER_ADDRESS"):
        find_profile("dask").check()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "127.0.0.1:port", "nonsense://127.0.0.1:1"])
def test_dask_needs_a_scheduler_that_answers(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(profiles, "ANSWER_SECONDS", 1)
    with dask.config.set({"scheduler-address": address}), pytest.raises(InputError, match="no Dask scheduler answers"):
        find_profile("dask").check()


@contextmanager
def dask_server() -> Iterator[str]:
    """Address of what speaks Dask's language and is neither a scheduler nor a worker."""
    loop, server = asyncio.new_event_loop(), DaskServer({})
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.listen("tcp://127.0.0.1:0"), loop).result()
        yield server.address
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_what_answers_must_be_a_scheduler(monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Server]) -> None:
    web = serve(b"a web page").url.removeprefix("http://").partition("/")[0]
    with dask_server() as other:
        for address, seconds, told in (
            (web, 1, "no Dask scheduler"),
            (other, 60, r"no Dask scheduler .*a server does"),
        ):
            monkeypatch.setattr(profiles, "ANSWER_SECONDS", seconds)
            with dask.config.set({"scheduler-address": address}), pytest.raises(InputError, match=told):
                find_profile("dask").check()


@pytest.mark.parametrize(
    ("name", "remedy"), [("slurm", r"pip install -e '\.\[slurm\]'"), ("dask", r"pip install -e '\.\[dask\]'")]
)
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str, remedy: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=remedy):
        find_profile(name).check()


def test_another_executor_is_named_by_its_package(tmp_path: Path) -> None:
    profile = find_profile(own_profile(tmp_path, "executor: some-cloud\n"))
    with pytest.raises(InputError, match="pip install snakemake-executor-plugin-some-cloud"):
        profile.check()


def test_whoever_develops_has_every_extra() -> None:
    extras = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in EXTRAS.values():
        assert set(extras[extra]) <= set(extras["dev"])
