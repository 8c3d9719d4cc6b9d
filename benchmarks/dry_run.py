"""Processor seconds and peak memory of `audioclf suite --dry-run` for a thousand runs, none of them done, as JSON.

A program of its own, since a process counts as its own the memory of the one that started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

# Two recipes, three learning rates, 21 seeds and eight experiments: 1,008 runs and a look at the data set.
PLAN = """
dataset: demo
recipe: [tuned, as-written]
learning_rate: [0.001, 0.002, 0.003]
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
experiments:
  - {model: cnn, protocol: [kfold, split]}
  - {model: transformer, num_heads: [1, 2, 4], protocol: [kfold, split]}
"""


def main() -> None:
    with TemporaryDirectory() as folder:
        plan = Path(folder, "plan.yaml")
        plan.write_text(PLAN, encoding="utf-8")
        command = [sys.executable, "-m", "audioclf_lib.cli", "suite", "--plan", str(plan), "--dry-run"]
        command += ["--runs-dir", str(Path(folder, "runs"))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # from now on the demo set is known
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the dry run ended with status {status}")
    seconds, mebibytes = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    print(json.dumps({"processor_seconds": round(seconds, 2), "peak_memory_mib": round(mebibytes)}))


if __name__ == "__main__":
    main()
