"""Where a suite runs: Snakemake profiles, and what each needs, looked at before anything is started."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from audioclf_lib._support.errors import InputError, quote
from audioclf_lib._support.paths import PROJECT_ROOT, user_path

PROFILES_DIR = PROJECT_ROOT / "workflow" / "profiles"
THIS_MACHINE = "laptop"
EXTRAS = {"slurm": "slurm", "cluster-sync": "dask"}  # executor -> extra of pyproject.toml that has its plugin
ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Profile:
    """A folder with settings for Snakemake.

    Attributes:
        folder: holds ``config.yaml``.
        executor: Snakemake's name for what runs the jobs.
        submit_command: of the ``cluster-sync`` executor.
        jobs: at once, where the profile says so.
    """

    folder: Path
    executor: str
    submit_command: str = ""
    jobs: int | None = None

    @property
    def is_local(self) -> bool:
        return self.executor == "local"

    def check(self) -> None:
        """See that jobs can be submitted from here.

        Raises:
            InputError: a package, ``sbatch``, or the Dask scheduler is missing.
        """
        if self.is_local:
            return
        self._need(f"snakemake_executor_plugin_{self.executor.replace('-', '_')}")
        if self.executor == "slurm" and shutil.which("sbatch") is None:
            raise InputError("there is no sbatch on this machine; start the suite where Slurm's commands are installed")
        if "dask_submit" in self.submit_command:
            self._need("distributed")
            _reach_dask()

    def _need(self, module: str) -> None:
        if importlib.util.find_spec(module) is None:
            extra = EXTRAS.get(self.executor)
            what = f"-e '.[{extra}]'` in the project's folder" if extra else f"{module.replace('_', '-')}`"
            raise InputError(f"{self.folder.name} needs {module.replace('_', '-')}; install it: `pip install {what}")


def find_profile(on: str) -> Profile:
    """The profile of that name in ``workflow/profiles``, or in a folder of the user's own.

    Raises:
        InputError: there is none, or its ``config.yaml`` cannot be read.
    """
    known = sorted(path.parent.name for path in PROFILES_DIR.glob("*/config.yaml"))
    folder = PROFILES_DIR / on if on in known else user_path(on).absolute()
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"nothing is known of running on {quote(on)}; give {', '.join(known)}, or a folder with a config.yaml of "
            "your own"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{folder / 'config.yaml'} cannot be read ({error}); correct it") from None
    if not isinstance(settings, dict):
        raise InputError(f"{folder / 'config.yaml'} holds no settings; copy one from {PROFILES_DIR}")
    jobs = settings.get("jobs")
    return Profile(
        folder,
        executor=str(settings.get("executor", "local")),
        submit_command=str(settings.get("cluster-sync-submit-cmd", "")),
        jobs=jobs if isinstance(jobs, int) else None,
    )


def _reach_dask() -> None:
    import dask

    address = dask.config.get("scheduler-address", None)  # DASK_SCHEDULER_ADDRESS, or in Dask's own configuration
    if not address:
        raise InputError("no Dask scheduler is named; set DASK_SCHEDULER_ADDRESS to its address, like tcp://HOST:8786")
    try:
        asyncio.run(_ask_scheduler(address))
    except Exception as error:  # what is no scheduler may answer anything
        raise InputError(
            f"no Dask scheduler answers at {quote(address)} ({error}); start one, or correct DASK_SCHEDULER_ADDRESS"
        ) from None


async def _ask_scheduler(address: str) -> None:
    """A question alone: a ``Client`` has a thread, and gives up where the machine is too busy to start it."""
    from distributed.core import rpc
    from distributed.security import Security

    arguments = Security().get_connection_args("client")  # TLS, where Dask's configuration asks for it
    async with rpc(address, timeout=ANSWER_SECONDS, connection_args=arguments) as scheduler:
        answer = await asyncio.wait_for(scheduler.identity(), ANSWER_SECONDS)
    if answer["type"] != "Scheduler":
        raise ValueError(f"a {str(answer['type']).lower()} does")
