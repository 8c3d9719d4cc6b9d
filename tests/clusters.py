"""A Slurm cluster and a Dask cluster on hosts of this machine: a login host, and two that compute."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from hosts import Host, hosts
from standins import wait_until

from audioclf_lib.config import PROJECT_ROOT

SLURM_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
BIN = Path(sys.executable).parent
DASK_PORT = 8786

# Every path is on the host's own disk or in the cluster's folder: nothing of /etc/slurm is read.
SLURM_CONF = """
ClusterName=audioclf
SlurmctldHost={login.name}({login.address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a job must wait that goes back into the queue; 120 s unless set.
AuthInfo=socket={login.disk}/munge.socket,cred_expire=20
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
SlurmdTimeout=20
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
        suite = self.login.start(
            BIN / "audioclf", "suite", "--on", self.on, *options, log=log, env=self.environment
        )
        self.suites.append(suite)
        return suite

    def interrupt(self, suite: subprocess.Popen[bytes]) -> None:
        """Press Ctrl-C."""
        (inside,) = psutil.Process(suite.pid).children()  # nsenter's child is the suite itself
        inside.send_signal(2)


@contextmanager
def slurm_cluster() -> Iterator[Cluster]:
    """A Slurm cluster with two nodes of one core and one (pretended) GPU each."""
    with _machines() as (folder, login, workers):
        key, conf, logs = folder / "munge.key", folder / "slurm.conf", folder / "logs"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        logs.mkdir()
        nodes = "\n".join(NODE.format(host=host) for host in workers)
        conf.write_text(SLURM_CONF.format(login=login, nodes=nodes))
        gpu = folder / "gpu0"
        gpu.touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={gpu}\n")
        environment = _environment(folder) | {"SLURM_CONF": str(conf)}
        for host in (login, *workers):
            _start_munge(host, key, logs)
        login.run("mkdir", login.disk / "state")
        login.start("slurmctld", "-D", log=logs / "slurmctld", env=environment)
        for host in workers:
            host.run("mkdir", host.disk / "spool")
            host.start("slurmd", "-D", "-N", host.name, log=logs / host.name, env=environment)
        profile = _impatient_profile(folder, "slurm")
        cluster = Cluster(folder, login, {host.name: host for host in workers}, profile, environment)
        wait_until(lambda: _slurm_says(cluster, "sinfo", "-h", "-o", "%D %t") == "2 idle", f"Slurm to be up; see {logs}")
        yield cluster


def queue(cluster: Cluster) -> str:
    """Slurm's jobs that have not ended, one a line."""
    return cluster.login.run("squeue", "-h", "-o", "%i %T %N %r %b", env=cluster.environment).strip()


@contextmanager
def dask_cluster() -> Iterator[Cluster]:
    """A Dask scheduler and a worker with one thread and one GPU (by name) on each of two hosts, as README starts them."""
    with _machines() as (folder, login, workers):
        logs = folder / "logs"
        logs.mkdir()
        address = f"tcp://{login.name}:{DASK_PORT}"
        environment = _environment(folder) | {
            "DASK_SCHEDULER_ADDRESS": address,
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s",
        }
        login.start(BIN / "dask", "scheduler", "--host", login.name, "--no-dashboard", log=logs / "dask", env=environment)
        for host in workers:
            options = ["--host", host.name, "--nthreads", "1", "--resources", "GPU=1", "--no-dashboard"]
            options += ["--local-directory", str(host.disk)]
            host.start(BIN / "dask", "worker", address, *options, log=logs / host.name, env=environment)
        wait_until(
            lambda: (logs / "dask").read_text().count("Register worker") == 2, f"Dask to be up; see {logs}"
        )
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
        lambda: not subprocess.run(
            host.command("munge", "-n", "-S", files["socket"]), capture_output=True
        ).returncode,
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
