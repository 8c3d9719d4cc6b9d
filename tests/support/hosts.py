"""Hosts on this machine: each has a network, a name, processes and a disk of its own, and can lose its power.

They are Linux namespaces, joined by a bridge in yet another one, so that nothing of them is seen from outside, two test
runs never meet, and all of it is gone with the process that made it, however that ends. The first process of a host is
the parent of all others there: when it is killed, the kernel kills them too.

What is not shown this way: all hosts have one kernel, one clock and one disk behind their files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from standins import wait_until

PROGRAMS = ("ip", "unshare", "nsenter", "setpriv", "mount")
NETWORK = "10.199.0."  # inside the namespaces only


def missing(*programs: str) -> str | None:
    """Why hosts with these programs cannot be made here; None if they can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "needs root on Linux, for hosts in namespaces"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if lost := [name for name in (*PROGRAMS, *programs) if shutil.which(name, path=path) is None]:
        return f"needs {', '.join(lost)} (`make system-packages`)"
    command = ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--mount-proc"]
    command += ["ip", "link", "add", "name", "switch", "type", "bridge"]
    tried = subprocess.run(command, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"needs namespaces and bridges: {tried.stderr.strip()}"


@dataclass
class Host:
    """A host that is on.

    Attributes:
        name: what ``hostname`` says there.
        address: in the network of all hosts.
        disk: a folder whose content differs from host to host and is gone with the host.
        init: its first process.
    """

    name: str
    address: str
    disk: Path
    init: psutil.Process

    def command(self, *arguments: str | Path) -> list[str]:
        """The command that runs this one on the host, in ``/``."""
        enter = ["nsenter", "--target", str(self.init.pid), "--net", "--uts", "--pid", "--mount", "--wd=/"]
        return [*enter, "setpriv", "--pdeathsig", "KILL", *map(str, arguments)]

    def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run a program to its end; what it printed. It is an error if it fails."""
        done = subprocess.run(self.command(*arguments), env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments} on {self.name}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *arguments: str | Path, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program that stays; what it prints goes to ``log``. It ends with the host."""
        with log.open("ab") as file:
            return subprocess.Popen(
                self.command(*arguments), env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )

    def lose_power(self) -> None:
        """Cut the cable, then kill every process: nobody says good-bye."""
        self.run("ip", "link", "set", "dev", "eth0", "down")
        everything = self.processes()
        self.init.kill()
        psutil.wait_procs(everything)

    def processes(self) -> list[psutil.Process]:
        """All that runs on the host."""
        own = _processes_of(self.init.pid)
        return [process for process in psutil.process_iter() if _processes_of(process.pid) == own]


def _processes_of(pid: int) -> str | None:
    """The name of the process table that a process is in."""
    with suppress(OSError):  # it has ended
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    return None


@contextmanager
def hosts(names: Sequence[str], folder: Path) -> Iterator[list[Host]]:
    """Switch hosts on, connected with each other; ``folder``/disk is the disk of each, all other files are shared."""
    addresses = {name: f"{NETWORK}{number}" for number, name in enumerate(names, start=1)}
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    table = folder / "hosts"
    table.write_text("127.0.0.1 localhost\n" + "".join(f"{addresses[name]} {name}\n" for name in names))
    with ExitStack() as stack:
        switch = stack.enter_context(_first_process())
        _ip(switch, "link", "add", "name", "switch", "type", "bridge")
        _ip(switch, "link", "set", "dev", "switch", "up")
        made = []
        for number, name in enumerate(names):
            init = stack.enter_context(_first_process())
            _ip(init, "link", "add", "name", "eth0", "type", "veth", "peer", "name", f"port{number}")
            _ip(init, "link", "set", "dev", f"port{number}", "netns", str(switch.pid))
            _ip(switch, "link", "set", "dev", f"port{number}", "master", "switch", "up")
            _ip(init, "address", "add", f"{addresses[name]}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip(init, "link", "set", "dev", device, "up")
            host = Host(name, addresses[name], disk, init)
            host.run("hostname", name)
            host.run("mount", "--bind", table, "/etc/hosts")
            host.run("mount", "-t", "tmpfs", "-o", "mode=755", "disk", disk)
            made.append(host)
        yield made


@contextmanager
def _first_process() -> Iterator[psutil.Process]:
    """The first process in new namespaces; it ends with this process, at the latest, and all others in them with it."""
    # bash waits for every child that it is left with, so that no zombies stay.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--uts", "--pid", "--mount", "--fork"]
    command += ["--kill-child", "--mount-proc", "bash", "-c", "sleep infinity; :"]
    outer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        parent = psutil.Process(outer.pid)
        wait_until(lambda: [child for child in parent.children() if child.name() == "bash"], "namespaces")
        yield parent.children()[0]
    finally:
        outer.kill()
        outer.wait()


def _ip(init: psutil.Process, *arguments: str) -> None:
    subprocess.run(["nsenter", "--target", str(init.pid), "--net", "ip", *arguments], check=True, capture_output=True)
