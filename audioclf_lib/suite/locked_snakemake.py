"""Snakemake as a program that holds a lock: ``python -m audioclf_lib.suite.locked_snakemake LOCK OPTIONS``.

The lock outlives the suite that started it, so that the next one waits for a Snakemake that still works.
"""

from __future__ import annotations

import sys
from pathlib import Path

from snakemake.cli import main  # type: ignore[import-untyped]

from audioclf_lib._support.locks import hold_lock

if __name__ == "__main__":
    with hold_lock(Path(sys.argv[1])):
        main(sys.argv[2:])
