"""The parts of the tuning notebook."""

from __future__ import annotations

import json
import shlex

import pandas as pd

from audioclf_lib import figures
from audioclf_lib.config import model_label
from audioclf_lib.report import tuning_observations as readings
from audioclf_lib.report.show import show_figure, show_table, show_text
from audioclf_lib.suite.search import SearchedSetting, StudyConfig
from audioclf_lib.suite.tuning import Study


def show_search(config: StudyConfig) -> None:
    """What is searched: every setting, its values, and what the recipe sets as it stands."""
    recipe = config.experiment({}).recipe_settings
    rows = [
        {
            "Setting": name,
            "Values searched": describe_values(searched),
            "In the recipe": f"{getattr(recipe, name)}",
            "What it is": type(recipe).model_fields[name].description,
        }
        for name, searched in config.search.items()
    ]
    show_table(
        pd.DataFrame(rows),
        caption=f"The settings that the study searches; all others are those of recipe {config.recipe}.",
        label="tbl:search",
    )


def describe_values(searched: SearchedSetting) -> str:
    """``0.0003 to 0.03, by powers``, ``relu or none``."""
    if searched.choices is not None:
        return " or ".join(str(choice) for choice in searched.choices)
    return f"{searched.low:g} to {searched.high:g}" + (", by powers" if searched.log else "")


def show_trials(study: Study, dataset: str) -> None:
    """How far the study is, and every trial, the best first."""
    show_text(readings.read_progress(study, dataset))
    if study.trials.empty:
        return
    columns = {"trial": "Trial", "state": "State", "epochs": "Epochs", "accuracy": "Windows", "clip_accuracy": "Clips"}
    shown = study.sorted_trials[[*columns, *study.config.search]].rename(columns=columns)
    show_table(
        shown,
        caption="Every trial, the best first: accuracy on the validation fold at the epoch kept, or, of a trial that "
        "ended before, at its last epoch; and its settings.",
        label="tbl:study",
        formats={"Windows": ".1%", "Clips": ".1%"} | dict.fromkeys(study.config.search, "g"),
    )


def show_history(study: Study, dataset: str) -> None:
    """How the search went, and what it found."""
    if study.trials["accuracy"].notna().any():
        show_figure(
            figures.plot_search_history(study.trials),
            caption="Window accuracy on the validation fold, trial by trial.",
            label="fig:study-history",
            name="history",
            dataset=dataset,
            experiment=study.study_id,
        )
    show_text(readings.read_history(study))


def show_importances(study: Study, dataset: str) -> None:
    """How much each setting matters."""
    if study.importances:
        show_figure(
            figures.plot_importances(study.importances),
            caption="Importance: of the variance of the accuracy that single settings explain, the share of each "
            "(fANOVA, Hutter et al. 2014).",
            label="fig:study-importances",
            name="importances",
            dataset=dataset,
            experiment=study.study_id,
        )
    show_text(readings.read_importances(study))


def show_parallel(study: Study, dataset: str) -> None:
    """The settings of all trials side by side."""
    if not study.done.empty:
        show_figure(
            figures.plot_parallel_settings(study.ranked, study.config.search),
            caption="A line for each trial trained to the end, through its settings to its window accuracy on the "
            "validation fold: the darker the better, the best in orange.",
            label="fig:study-parallel",
            name="parallel",
            dataset=dataset,
            experiment=study.study_id,
            width="100%",
        )
    if text := readings.read_best_few(study):
        show_text(text)


def show_best(study: Study) -> None:
    """The best settings, to be pasted into ``recipe_changes``, and how far their score can be trusted."""
    if study.best_settings is None:
        show_text("There are no best settings yet: no trial has been trained to the end.")
        return
    settings = json.dumps(study.best_settings)
    show_text(f"The best settings, as a value for the parameter `recipe_changes`:\n\n```json\n{settings}\n```")
    show_text(f"For instance:\n\n```bash\n{train_command(study)}\n```")
    show_text(readings.read_certainty(study))


def train_command(study: Study) -> str:
    """The command that trains the best settings under cross-validation."""
    config = study.config
    model = model_label(config.model, config.experiment({}).num_heads)
    command = f"audioclf run {model}-kfold --dataset {shlex.quote(config.dataset)} --epochs {config.epochs}"
    return f"{command} --recipe {config.recipe} --recipe-changes '{json.dumps(study.best_settings)}'"
