"""A model card: what a run was trained on, how well it does, and what it must not be used for."""

from __future__ import annotations

import re

import pandas as pd

from audioclf_lib.metrics.results import SPLIT_TITLES
from audioclf_lib.metrics.scores import SPLITS, class_probabilities, evaluate, to_clips
from audioclf_lib.metrics.uncertainty import bootstrap_interval, calibrate
from audioclf_lib.report.prose import Prose
from audioclf_lib.report.show import pipe_table
from audioclf_lib.report.tables import data_table, percent
from audioclf_lib.report.values import Value, data_values
from audioclf_lib.runs.store import Run

CARD = "model_card.md"  # its file's name, beside exported or published weights
PER_CLASS = ["Precision", "Recall", "F1", "Clips", "AUC"]  # columns of ``Scores.per_class``
HARMLESS = re.compile(r"\\([-,%()]|\.(?=\d))")  # escapes that a reader of the plain file is spared


def model_card(run: Run) -> str:
    """The card of a run as Markdown, by the text ``model_card`` and numbers of the run folder alone.

    The scores are those of the test fold; of a tuning trial, which has none, of the validation fold.
    """
    config, splits = run.config, [split for split in SPLITS if (run.predictions["split"] == split).any()]
    scores = evaluate(run.predictions, config.class_names, level="clip", split=splits[-1])
    tables = {
        "data": data_table(run).reset_index(),
        "scores": pd.DataFrame([_scores(run, split) for split in splits]),
        "classes": scores.per_class.set_axis(PER_CLASS, axis=1).rename_axis("Class").reset_index(),
    }
    numbers = {
        "title": config.model_title,
        "fit": config.fit_id,
        "version": run.environment["versions"]["audioclf"],
        "commit": run.environment["commit"] or "unknown",
        "classes": ", ".join(config.class_names),
        "n_classes": len(config.class_names),
        "fingerprint": config.fingerprint,
        "train_folds": ", ".join(map(str, config.train_folds)),
        "epoch": run.metrics["chosen"]["epoch"],
        **config.model_dump(include={"val_fold", "test_fold", "epochs"}),
        "split": splits[-1],
        "chance": scores.chance,
        "wrong": 1 - scores.accuracy,
        "ece": calibrate(scores.y_true, scores.probabilities).ece,
    }
    values = dict(data_values(run)) | {name: Value(number) for name, number in numbers.items()}
    card, formats = Prose(values).text("model_card"), dict.fromkeys(PER_CLASS, ".2f") | {"Clips": "d"}
    for name, table in tables.items():
        card = card.replace(f"<!-- {name} -->", pipe_table(table, formats).strip())
    return HARMLESS.sub(r"\1", card) + "\n"


def _scores(run: Run, split: str) -> dict[str, object]:
    """A row of the table of scores."""
    rows = run.predictions[run.predictions["split"] == split].sort_values(["clip_id", "window_index"])
    y_true, probabilities = to_clips(rows, len(run.config.class_names))
    right = pd.Series(class_probabilities(rows).argmax(1) == rows["y_true"], rows.index)
    sources = rows.drop_duplicates("clip_id")["source"].tolist()
    shares = {"Windows right": right.groupby(rows["clip_id"]).mean(), "Clips right": probabilities.argmax(1) == y_true}
    counts = {"Split": SPLIT_TITLES[split], "Recordings": len(set(sources)), "Clips": len(sources)}
    return counts | {
        name: percent(float(each.mean()), interval=bootstrap_interval(each, sources)) for name, each in shares.items()
    }
