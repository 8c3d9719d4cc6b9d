"""Run a job script of Snakemake on a worker of the Dask scheduler that DASK_SCHEDULER_ADDRESS names.

Usage, by the dask profile: dask_submit.py GPUS SCRIPT. Ends when the script has ended, with 1 if that failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from distributed import Client, Status, get_worker


def run_script(script: str) -> int:
    """On a worker: run the script, and stop it when the worker closes or nobody waits for it any more.

    Dask itself leaves a task alone that has begun; of one whose client is gone it only forgets the result.
    """
    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    process = subprocess.Popen([script], start_new_session=True)
    while process.poll() is None:
        if task.state != "executing" or worker.status != Status.running:
            os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.5)
    return process.returncode


if __name__ == "__main__":
    gpus, script = sys.argv[1:]
    with Client() as client:
        resources = {"GPU": int(gpus)} if int(gpus) else {}
        sys.exit(client.submit(run_script, script, pure=False, resources=resources).result() != 0)
