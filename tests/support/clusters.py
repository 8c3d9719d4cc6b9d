"""A Slurm cluster and a Dask cluster on hosts of this machine: a login host, and two that compute."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil
import torch
from hosts import Host, hosts
from small_suite import make_sounds, outcomes_of
from standins import Scene, wait_until

from audioclf_lib._support.paths import PROJECT_ROOT
from audioclf_lib.data import load_dataset
from audioclf_lib.runs.store import Run, RunStore
from audioclf_lib.suite.jobs import Outcome
from audioclf_lib.suite.plan import Plan, load_plan, save_plan
from audioclf_lib.training.trainer import fit

SLURM_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
BIN = Path(sys.executable).parent
DASK_PORT = 8786

# Every path is on the host's own disk or in the cluster's folder; the hosts see that folder's settings as /etc/slurm.
SLURM_CONF = """
ClusterName=audioclf
SlurmctldHost={login.name}({login.address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a job must wait that goes back into the queue; 120 s unless set.
AuthInfo=socket={login.disk}/munge.socket,cred_expire=15
StateSaveLocation={login.disk}/state
SlurmdSpoolDir={login.disk}/spool
SlurmctldPidFile={login.disk}/slurmctld.pid
SlurmdPidFile={login.disk}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=5,bf_interval=5
SlurmdParameters=config_overrides
SlurmdTimeout=15
MinJobAge=300
KillWait=10
ReturnToService=2
MpiDefault=none
GresTypes=gpu
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""
NODE = "NodeName={host.name} NodeAddr={host.address} CPUs=1 RealMemory=100000 Gres=gpu:1"

# The user's own profile: what comes with the project, looked after more often than a real cluster would like.
IMPATIENT = {"slurm-init-seconds-before-status-checks: 20": "slurm-init-seconds-before-status-checks: 3"}


@dataclass
class Cluster:
    """A cluster that is up.

    Attributes:
        folder: seen by all hosts.
        login: where suites are started.
        workers: where notebooks run, by name.
        on: the profile.
        environment: of suites, and of what runs notebooks.
    """

    folder: Path
    login: Host
    workers: dict[str, Host]
    on: str
    environment: dict[str, str]
    suites: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_suite(self, folder: Path, *options: str | Path) -> subprocess.Popen[bytes]:
        """Start ``audioclf suite`` on the login host; what it prints goes to ``folder``/suite.txt."""
        log = folder / "suite.txt"
        log.unlink(missing_ok=True)
        suite = self.login.start(BIN / "audioclf", "suite", "--on", self.on, *options, log=log, env=self.environment)
        self.suites.append(suite)
        return suite

    def interrupt(self, suite: subprocess.Popen[bytes]) -> None:
        """Press Ctrl-C."""
        (inside,) = psutil.Process(suite.pid).children()  # nsenter's child is the suite itself
        inside.send_signal(2)

    def kill_suites(self) -> None:
        """Kill all that belongs to a suite on the login host, without a chance to clean up."""
        for process in self.login.processes():
            if {"suite", "audioclf_lib.suite.locked_snakemake"} & words_of(process):
                process.kill()


@contextmanager
def slurm_cluster() -> Iterator[Cluster]:
    """A Slurm cluster with two nodes of one core and one (pretended) GPU each."""
    with _machines() as (folder, login, workers):
        key, settings, logs = folder / "munge.key", folder / "slurm", folder / "logs"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        logs.mkdir()
        settings.mkdir()
        nodes = "\n".join(NODE.format(host=host) for host in workers)
        (settings / "slurm.conf").write_text(SLURM_CONF.format(login=login, nodes=nodes))
        (settings / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
        environment = _environment(folder)
        for host in (login, *workers):
            # Not SLURM_CONF: Snakemake's plugin takes SLURM_* out of the environment of what it runs on the nodes.
            host.run("mount", "--bind", settings, "/etc/slurm")
            _start_munge(host, key, logs)
        login.run("mkdir", login.disk / "state")
        login.start("slurmctld", "-D", log=logs / "slurmctld", env=environment)
        for host in workers:
            host.run("mkdir", host.disk / "spool")
            host.start("slurmd", "-D", "-N", host.name, log=logs / host.name, env=environment)
        profile = _impatient_profile(folder, "slurm")
        cluster = Cluster(folder, login, {host.name: host for host in workers}, profile, environment)
        wait_until(
            lambda: _slurm_says(cluster, "sinfo", "-h", "-o", "%D %t") == "2 idle", f"Slurm to be up; see {logs}"
        )
        yield cluster


def queue(cluster: Cluster) -> str:
    """Slurm's jobs that have not ended, one a line."""
    return cluster.login.run("squeue", "-h", "-o", "%i %T %N %b", env=cluster.environment).strip()


@contextmanager
def dask_cluster() -> Iterator[Cluster]:
    """A Dask scheduler, and on each of two hosts a worker with one thread and one GPU (by name)."""
    with _machines() as (folder, login, workers):
        logs = folder / "logs"
        logs.mkdir()
        address = f"tcp://{login.name}:{DASK_PORT}"
        environment = _environment(folder) | {
            "DASK_SCHEDULER_ADDRESS": address,
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s",
        }
        quiet = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        scheduler = [BIN / "dask", "scheduler", "--host", login.name, *quiet]
        login.start(*scheduler, log=logs / "dask", env=environment)
        for host in workers:
            worker = [BIN / "dask", "worker", address, "--host", host.name, "--nthreads", "1", "--resources", "GPU=1"]
            host.start(*worker, *quiet, "--local-directory", host.disk, log=logs / host.name, env=environment)
        wait_until(lambda: (logs / "dask").read_text().count("Register worker") == 2, f"Dask to be up; see {logs}")
        yield Cluster(folder, login, {host.name: host for host in workers}, "dask", environment)


@contextmanager
def _machines() -> Iterator[tuple[Path, Host, list[Host]]]:
    # Not pytest's folder: a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="audioclf-hosts-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge wants every user to reach its socket
        with hosts(["login", "node1", "node2"], folder) as (login, *workers):
            yield folder, login, workers


def _environment(folder: Path) -> dict[str, str]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return os.environ | {"PATH": path, "AUDIOCLF_FIGURES": str(folder / "figures"), "PYTHONPATH": str(PROJECT_ROOT)}


def _start_munge(host: Host, key: Path, logs: Path) -> None:
    files = {name: f"{host.disk}/munge.{name}" for name in ("socket", "pid", "seed")}
    host.start(
        *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={files['socket']}"),
        *(f"--pid-file={files['pid']}", f"--seed-file={files['seed']}", f"--log-file={logs / 'munge'}-{host.name}"),
        log=logs / f"munge-{host.name}.out",
    )
    wait_until(
        lambda: not subprocess.run(host.command("munge", "-n", "-S", files["socket"]), capture_output=True).returncode,
        f"munge on {host.name}; see {logs}",
    )


def _slurm_says(cluster: Cluster, *command: str) -> str:
    done = subprocess.run(cluster.login.command(*command), env=cluster.environment, capture_output=True, text=True)
    return done.stdout.strip()


def _impatient_profile(folder: Path, name: str, changes: Mapping[str, str] = IMPATIENT) -> str:
    text = (PROJECT_ROOT / "workflow" / "profiles" / name / "config.yaml").read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    own = folder / "my profile"
    own.mkdir()
    (own / "config.yaml").write_text(text)
    return str(own)


PLAN = """
dataset: ./My Sounds
epochs: {epochs}
experiments: {experiments}
"""
SMALL = "[{model: cnn, protocol: kfold}, {model: transformer, num_heads: 2, protocol: split}]"


class Work:
    """A small plan on a small data set, to be run on a cluster and on this machine.

    Attributes:
        runs_dir: of the cluster's runs.
        said: the lines of the last suite's progress.
    """

    def __init__(self, folder: Path, *, epochs: int = 1, experiments: str = SMALL) -> None:
        self.folder = folder
        self.runs_dir = folder / "my runs"  # users' folders have spaces
        self.plan_file = folder / "small.yaml"
        make_sounds(folder / "My Sounds")
        self.plan_file.write_text(PLAN.format(epochs=epochs, experiments=experiments))
        self.said: list[str] = []

    def start(self, cluster: Cluster, *options: str) -> subprocess.Popen[bytes]:
        return cluster.start_suite(self.folder, "--plan", self.plan_file, "--runs-dir", self.runs_dir, *options)

    def run(self, cluster: Cluster, *options: str) -> list[Outcome]:
        suite = self.start(cluster, *options)
        code = wait_for_end(suite)
        self.said = [line for line in self.printed.splitlines() if ": started" in line or ": done in" in line]
        assert code == 0, self.printed + (self.runs_dir / ".suite" / "suite.log").read_text()
        return self.outcomes()

    @property
    def printed(self) -> str:
        return (self.folder / "suite.txt").read_text()

    def outcomes(self) -> list[Outcome]:
        return outcomes_of(load_plan(str(self.plan_file)), self.runs_dir)

    def hosts(self, outcomes: list[Outcome]) -> set[str]:
        """Which hosts ran notebooks."""
        return {outcome.status.host for outcome in outcomes if outcome.status}

    def host_of(self, title: str) -> str | None:
        """Where the notebook of that short name runs or ran."""
        (status,) = [outcome.status for outcome in self.outcomes() if outcome.job.title == title]
        return status.host if status else None

    def is_in_a_second_fit(self) -> bool:
        """One fit is finished, another has been trained for some epochs."""
        return bool(self.finished()) and any(self.runs_dir.glob("*/.*.partial/checkpoint.pt"))

    def finished(self) -> list[Run]:
        return RunStore(self.runs_dir).find()

    def snapshot(self) -> dict[Path, str]:
        """What is in each file of a finished fit and each executed notebook; all tell how long things took.

        Not when they were written: Snakemake touches a finished job's output.
        """
        files = [path for run in self.finished() for path in run.path.iterdir()]
        files += [outcome.job.output for outcome in self.outcomes() if outcome.job.output.exists()]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def on_this_machine(self) -> list[Run]:
        """The same fits, trained in this process on one thread, as a laptop's notebooks would."""
        plan, store, threads = load_plan(str(self.plan_file)), RunStore(self.folder / "laptop"), torch.get_num_threads()
        dataset = load_dataset(plan.dataset)
        torch.set_num_threads(1)
        try:
            for experiment in plan.experiments_list():
                for config in experiment.fits(dataset):
                    fit(config, dataset, runs_dir=store.runs_dir, device="cpu")
        finally:
            torch.set_num_threads(threads)
        return store.find()


KFOLD = "[{model: cnn, protocol: kfold}]"
LONG_FIT = 40  # epochs; long enough to meet it in the midst


def lose_a_host_and_finish(cluster: Cluster, folder: Path) -> None:
    """Lose the host that trains, and see that the other one takes its work over, and trains nothing twice."""
    work = Work(folder, epochs=LONG_FIT, experiments=KFOLD)
    suite = work.start(cluster)
    wait_until(work.is_in_a_second_fit, "a second fit", 600)
    lost = work.host_of("cnn-kfold")
    assert lost is not None
    finished = work.snapshot()
    cluster.workers[lost].lose_power()
    assert len(work.finished()) == 1, "the fit was over before the power was cut; give it more epochs"

    (survivor,) = set(cluster.workers) - {lost}
    wait_until(lambda: work.host_of("cnn-kfold") == survivor, f"{survivor} to take over from {lost}", 180)
    assert wait_for_end(suite) == 0, work.printed
    assert len(work.finished()) == 2
    assert finished.items() <= work.snapshot().items()
    assert_same_results(work.finished(), work.on_this_machine())


STANDINS = Plan(
    name="stand-ins",
    epochs=2,
    experiments=({"model": "cnn", "protocol": "split"}, {"model": "cnn", "protocol": "kfold"}),
)


def start_standins(cluster: Cluster, scene: Scene) -> subprocess.Popen[bytes]:
    """A suite of notebooks that train nothing, and want a GPU."""
    scene.train(STANDINS, load_dataset("demo"))
    save_plan(STANDINS, scene.folder / "plan.yaml")
    options = ["--plan", scene.folder / "plan.yaml", "--runs-dir", scene.runs_dir, "--notebooks-dir", scene.notebooks]
    return cluster.start_suite(scene.folder, *options, "--device", "cuda")


def start_waiting(cluster: Cluster, scene: Scene) -> subprocess.Popen[bytes]:
    """The same; two of three run and wait, which leaves no host for the third."""
    scene.wish({"cnn-kfold": "wait", "dataset": "wait", "cnn-split": "wait"})
    for mark in scene.folder.glob("*.waits"):
        mark.unlink()
    suite = start_standins(cluster, scene)
    wait_until(lambda: len(list(scene.folder.glob("*.waits"))) == 2, "two notebooks to run", 600)
    return suite


def notebooks_running(cluster: Cluster) -> list[psutil.Process]:
    """Processes that run a notebook, on any host, and their kernels."""
    everything = [process for host in cluster.workers.values() for process in host.processes()]
    ours = {"audioclf_lib.suite.notebooks", "ipykernel_launcher"}
    return [process for process in everything if ours & words_of(process)]


def words_of(process: psutil.Process) -> set[str]:
    """Of its command line; none if it has ended."""
    with suppress(psutil.Error):
        return set(process.cmdline())
    return set()


def wait_for_end(suite: subprocess.Popen[bytes], seconds: float = 900) -> int:
    """The exit code of a suite; fails if it hangs."""
    return suite.wait(seconds)


def assert_same_results(runs: list[Run], reference: list[Run]) -> None:
    """The same fits, with the same probabilities to the last bit."""
    assert [run.config.fit_id for run in runs] == [run.config.fit_id for run in reference] != []
    for run, other in zip(runs, reference, strict=True):
        pd.testing.assert_frame_equal(run.predictions, other.predictions, check_exact=True)
