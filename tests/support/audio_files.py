"""Small data sets on disk, for the tests of ``audioclf_lib.data``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf


def tone(seconds: float = 1.0, rate: int = 16_000, frequency: float = 440.0, level: float = 0.5) -> np.ndarray:
    """A sine tone: (n_samples,) float32."""
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def make_folder(
    folder: Path, *, classes: tuple[str, ...] = ("low", "high"), folds: tuple[int, ...] = (1, 2, 3)
) -> Path:
    """A user's folder: one tone for each class and fold, and the ``labels.csv`` that lists them."""
    folder.mkdir(parents=True)
    rows = []
    for fold in folds:
        for number, label in enumerate(classes, start=1):
            name = f"{label}-{fold}.wav"
            sf.write(folder / name, tone(frequency=100 * number + fold), 16_000)
            rows.append({"filename": name, "label": label, "fold": fold})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


def make_esc50(folder: Path, categories: dict[str, bool]) -> Path:
    """A small copy of ESC-50's layout: a clip of each category and fold; the value says whether it is in ESC-10."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rows = []
    for fold in range(1, 6):
        for target, (category, esc10) in enumerate(categories.items()):
            name = f"{fold}-{1000 * fold + target}-A-{target}.wav"
            sf.write(folder / "audio" / name, tone(5, 44_100, 200 + 10 * target), 44_100)
            source = str(1000 * fold + target)
            rows.append([name, fold, target, category, esc10, source, "A"])
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "meta" / "esc50.csv", index=False)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
