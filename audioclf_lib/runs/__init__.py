"""Run folders: ``store`` alone reads and writes them, ``locks`` lets one process at a time make one."""

from audioclf_lib.runs.store import Run, RunStore, load_run

__all__ = ["Run", "RunStore", "load_run"]
