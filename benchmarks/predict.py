"""Seconds and peak memory of `audioclf predict RUN FOLDER` for 100 and for 1,000 clips of 5 s at 44.1 kHz, as JSON.

    python benchmarks/predict.py best

A program of its own, since a process counts as its own the memory of the one that started it. Processor seconds count
on a machine that does other things, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile as sf

RATE = 44_100
SECONDS = 5
COUNTS = (100, 1_000)


def main(arguments: list[str]) -> None:
    results = {}
    with TemporaryDirectory() as folder:
        for count in COUNTS:
            sounds = Path(folder, str(count))
            write_clips(sounds, count)
            command = [sys.executable, "-m", "audioclf_lib.cli", "predict", arguments[0], str(sounds), "--csv"]
            start = time.perf_counter()
            process = subprocess.Popen([*command, *arguments[1:]], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            if status:
                sys.exit(f"predict ended with status {status}")
            results[f"{count} clips"] = {
                "seconds": round(time.perf_counter() - start, 1),
                "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
                "peak_memory_mib": round(used.ru_maxrss / 1024),
            }
    print(json.dumps(results, indent=2))


def write_clips(folder: Path, count: int) -> None:
    """Write noise of different loudness; from the hundredth clip on they are further names of the first hundred."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:04}.wav"
        if number < COUNTS[0]:
            sf.write(path, generator.normal(0, generator.uniform(0.01, 0.3), RATE * SECONDS), RATE)
        else:
            os.link(folder / f"{number % COUNTS[0]:04}.wav", path)


if __name__ == "__main__":
    main(sys.argv[1:])
