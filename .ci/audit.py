"""Look for known vulnerabilities in what the lock files pin, and say of how many packages anything was learnt.

pip-audit alone says "no known vulnerabilities" where it learnt nothing, as behind a mirror that lacks the data.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "benchmarks/requirements.lock")
COMMAND = (
    sys.executable,
    "-m",
    "pip_audit",
    "--disable-pip",
    "--require-hashes",
    "--progress-spinner=off",
    "--format=json",
)


def audit(lock: str) -> tuple[list[str], bool]:
    """What to say of a lock file, and whether it holds a package with a known vulnerability."""
    done = subprocess.run([*COMMAND, "--requirement", str(PROJECT / lock)], capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return [f"{lock}: NOT AUDITED, pip-audit could not reach its data ({reason})"], False
    return summarise(lock, report["dependencies"])


def summarise(lock: str, packages: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """The same, from pip-audit's list of packages."""
    known = [package for package in packages if "skip_reason" not in package]
    faults = [(package, fault) for package in known for fault in package["vulns"]]
    lines = [
        f"{package['name']} {package['version']}: {fault['id']}, "
        f"mended in {', '.join(fault['fix_versions']) or 'no version yet'}"
        for package, fault in faults
    ]
    if not known:
        return [f"{lock}: NOT AUDITED, pip-audit could not reach its data on any of {len(packages)} packages"], False
    found = f"{len(faults)} known vulnerabilities" if faults else "no known vulnerability"
    unknown = f", NOT AUDITED: {len(packages) - len(known)} others" if len(known) < len(packages) else ""
    return [*lines, f"{lock}: {found} in {len(known)} packages{unknown}"], bool(faults)


if __name__ == "__main__":
    results = [audit(lock) for lock in LOCKS]
    print("\n".join(line for lines, _ in results for line in lines))
    sys.exit(any(is_bad for _, is_bad in results))
