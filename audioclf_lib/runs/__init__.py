"""Run folders, which ``store`` alone reads and writes."""

from audioclf_lib.runs.store import Run, RunStore, load_run

__all__ = ["Run", "RunStore", "load_run"]
