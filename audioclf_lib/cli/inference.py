"""``audioclf predict``, ``export`` and ``card``: what a trained run is for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from audioclf_lib._support.errors import one_line
from audioclf_lib._support.paths import explained, replace_file, user_path

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder, the id of a fit, an experiment (cnn-kfold), or best.")
]
_SEARCHED = typer.Option(help="Where RUN is searched.", show_default="report/runs, then report/published")
RunsDirOption = Annotated[str | None, _SEARCHED]


def predict(
    run: RunArgument,
    files: Annotated[list[str], typer.Argument(metavar="FILE|FOLDER...", help="Sounds of any length and format.")],
    windows: Annotated[bool, typer.Option("--windows", help="The answer over time: a row for each window.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with all probabilities.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all probabilities.")] = False,
    runs_dir: RunsDirOption = None,
) -> None:
    """Tell what sounds are with a trained run; the fits of an experiment vote."""
    from audioclf_lib.cli.tables import answers_table, show
    from audioclf_lib.inference import predict

    found = predict(run, files, runs_dir=runs_dir)
    table, n_classes = found.table(windows=windows), len(found.clips.columns)
    if as_csv:
        print(table.to_csv(index=False, lineterminator="\n"), end="")
    elif as_json:
        facts, shares = (part.to_dict("records") for part in (table.iloc[:, :-n_classes], table.iloc[:, -n_classes:]))
        nested = [fact | {"probabilities": each} for fact, each in zip(facts, shares, strict=True)]
        print(json.dumps(nested, ensure_ascii=False, indent=2))
    else:
        show(answers_table(found, windows=windows))
    for reason in found.failed.values():
        print(one_line(reason), file=sys.stderr)
    if found.failed:
        raise typer.Exit(1)


def export(
    run: RunArgument,
    to: Annotated[Literal["onnx"], typer.Option(help="What to write.")] = "onnx",
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder to make.", show_default="the fit's id")
    ] = None,
    runs_dir: RunsDirOption = None,
) -> None:
    """Write a fit's network, with its input normalisation, and its model card for use elsewhere."""
    from audioclf_lib.cli.tables import show, shown_path
    from audioclf_lib.inference import choose_fit, export_onnx
    from audioclf_lib.report.card import CARD, model_card

    fit = choose_fit(run, runs_dir)
    folder = user_path(output) if output else Path(fit.config.fit_id)
    text = model_card(fit)
    export_onnx(fit, folder / f"model.{to}")
    with explained(folder, "free space or choose another folder"):
        replace_file(folder / CARD, text.encode())
    show(f"exported: {shown_path(folder / f'model.{to}')}, {shown_path(folder / CARD)}")


def card(run: RunArgument, runs_dir: RunsDirOption = None) -> None:
    """Show the model card of a fit: its data, its scores, and what it must not be used for."""
    from audioclf_lib.inference import choose_fit
    from audioclf_lib.report.card import model_card

    print(model_card(choose_fit(run, runs_dir)), end="")
