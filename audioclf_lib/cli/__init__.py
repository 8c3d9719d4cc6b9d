"""The ``audioclf`` command.

Exit codes: 0 all done, 1 something failed, 2 bad input (one sentence on stderr), 130 stopped by Ctrl-C or a signal.
What takes long to import is imported by the command that needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioclf_lib._support.choices import DeviceName, LogName, ProtocolName, RecipeName
from audioclf_lib._support.errors import InputError, one_line, quote
from audioclf_lib._support.extras import require_extra
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, NOTEBOOKS_DIR, PROJECT_ROOT, user_path
from audioclf_lib.cli.data import data, init
from audioclf_lib.cli.inference import card, export, predict

if TYPE_CHECKING:
    from audioclf_lib.config import Experiment
    from audioclf_lib.suite.jobs import Job

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    help="Audio classification as a course report: data, experiments in notebooks, and the report made of them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _given_path(path: Path | None) -> Path | None:
    """Every path that a user gives goes through this."""
    return None if path is None else user_path(path)


def _given_dataset(name_or_path: str | None) -> str | None:
    from audioclf_lib.suite.plan import resolve_dataset

    return resolve_dataset(name_or_path) if name_or_path else None


app.command()(init)
app.command()(data)

_DATASET = typer.Option(
    "--dataset", "-d", callback=_given_dataset, help="demo, esc10, or recordings: a folder, a zip, a table."
)
DatasetOption = Annotated[str | None, _DATASET]
EpochsOption = Annotated[int | None, typer.Option("--epochs", "-e", help="Epochs of every fit.")]
TestFoldOption = Annotated[int | None, typer.Option(help="Fold that is never trained on.")]
RecipeChangesOption = Annotated[
    str | None, typer.Option(help='Recipe settings to change, as a JSON object: {"dropout": 0.3}.')
]
DeviceOption = Annotated[DeviceName | None, typer.Option(help="Where to compute; auto unless given.")]
LogOption = Annotated[LogName | None, typer.Option(help="Where epochs and final figures are logged, too.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of every fit, and of a search.")]
ParameterOption = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Any parameter of the notebook; may be repeated."),
]
_RUNS_DIR = typer.Option(help="Where runs are kept.", show_default="report/runs", callback=_given_path)
RunsDirOption = Annotated[Path, _RUNS_DIR]
OwnRunsDirOption = Annotated[Path | None, _RUNS_DIR]


def _options(context: typer.Context, *names: str) -> dict[str, Any]:
    """Those of a command's options that were given."""
    return {name: context.params[name] for name in names if context.params[name] is not None}


@app.command()
def run(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT|MODEL|NOTEBOOK",
            help="An experiment (cnn-kfold, transformer-h4-split, cnn-rotation, ...), the .py file of a model, or a "
            "notebook's name or path.",
        ),
    ],
    dataset: DatasetOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    test_fold: TestFoldOption = None,
    protocol: Annotated[ProtocolName | None, typer.Option(help="For the .py file of a model.")] = None,
    recipe_changes: RecipeChangesOption = None,
    device: DeviceOption = None,
    log: LogOption = None,
    runs_dir: OwnRunsDirOption = None,
    parameter: ParameterOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the executed notebook goes.", callback=_given_path)
    ] = None,
) -> None:
    """Run one notebook in batch, as an experiment of the suite or with parameters of your own."""
    from audioclf_lib.cli.tables import live_lines, show, shown_path
    from audioclf_lib.data import dataset_facts
    from audioclf_lib.runs.store import RunStore
    from audioclf_lib.suite.jobs import experiment_job, read_outcomes
    from audioclf_lib.suite.notebooks import read_progress, run_notebook, say_waiting
    from audioclf_lib.training.environment import choose_device

    names = "dataset", "epochs", "seed", "test_fold", "protocol", "recipe_changes", "device", "log"
    given = _options(context, *names) | ({"runs_dir": str(runs_dir.resolve())} if runs_dir else {})
    given |= _parse_parameters(parameter)
    require_extra(log or "none")
    experiment, job = _parse_experiment(target, given), None
    if experiment:
        choose_device(experiment.device)  # raises if it is not present
        job = experiment_job(experiment, dataset_facts(experiment.dataset, with_folds=experiment.named_folds))
        RunStore(experiment.runs_dir).refuse_others(job.fits)
        notebook, place, parameters = job.notebook, job.output, job.parameters
    else:
        notebook = _find_notebook(target, NOTEBOOKS_DIR)
        place, parameters = Path(f"{notebook.stem}{_told_apart(given)}-executed.ipynb"), given
    place = output or place
    with live_lines(lambda: read_progress(place)):
        executed = run_notebook(notebook, place, parameters, on_wait=say_waiting)
    show(f"executed notebook: {shown_path(executed)}")
    if experiment and job:
        (outcome,) = read_outcomes([job], RunStore(experiment.runs_dir))
        show(f"{job.title}: {outcome.scores}")


@app.command()
def suite(
    context: typer.Context,
    plan: Annotated[str, typer.Option("--plan", help="demo, full, or a YAML file like workflow/plans/demo.yaml.")] = (
        "demo"
    ),
    dataset: DatasetOption = None,
    epochs: EpochsOption = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, separated by commas: 0,1,2.")] = None,
    test_fold: TestFoldOption = None,
    recipe: Annotated[RecipeName | None, typer.Option(help="How fits are trained.")] = None,
    recipe_changes: RecipeChangesOption = None,
    device: Annotated[DeviceName, typer.Option(help="Where to compute.")] = "auto",
    log: LogOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Notebooks at once.", show_default="one per core, or per GPU; elsewhere the profile says"
        ),
    ] = None,
    notebooks_dir: Annotated[
        Path, typer.Option(help="Where the notebooks are.", show_default="notebooks", callback=_given_path)
    ] = NOTEBOOKS_DIR,
    on: Annotated[
        str,
        typer.Option(metavar="WHERE", help="laptop, slurm, dask, or a folder with a Snakemake profile of your own."),
    ] = "laptop",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would run, what is done, and how long the rest may take."),
    ] = False,
) -> None:
    """Run all experiments of a plan; what is done is skipped, and an interrupted suite goes on where it stopped."""
    from audioclf_lib.cli import tables
    from audioclf_lib.runs.store import RunStore
    from audioclf_lib.suite.jobs import jobs_at_once, read_outcomes, seconds_left, suite_jobs
    from audioclf_lib.suite.plan import load_plan, load_plans

    changes = _options(context, "epochs", "test_fold", "recipe", "recipe_changes", "log")
    changes |= {} if seeds is None else {"seeds": seeds.split(",")}
    chosen = [load_plan(plan, dataset)] if dataset else load_plans(plan)
    plans = [each.changed(**changes) for each in chosen]
    require_extra(plans[0].log)
    tables.show(f"plan {plans[0].name} on {' and '.join(each.dataset for each in plans)}")
    where = _options(context, "runs_dir", "notebooks_dir", "device")
    if dry_run:
        todo, store = suite_jobs(plans, **where), RunStore(runs_dir)
        outcomes = read_outcomes(todo, store)
        tables.show(tables.suite_table(outcomes))
        at_once = jobs or jobs_at_once(todo, "cpu" if device == "auto" else device)
        tables.show(tables.describe_rest(outcomes, seconds_left(todo, store), at_once))
        return
    from audioclf_lib.suite.engine import run_suite

    running: dict[str, Job] = {}
    with tables.live_lines(lambda: tables.describe_running(list(running.values()))):
        outcomes = run_suite(plans, **where, jobs=jobs, on=on, say=typer.echo, running=running)
    tables.show(tables.suite_table(outcomes))
    failures = [outcome for outcome in outcomes if outcome.state != "done"]
    if failures:
        tables.show(tables.failure_table(failures))
        raise typer.Exit(FAILED)


@app.command()
def report(
    context: typer.Context,
    plan: Annotated[
        str | None, typer.Option("--plan", help="Whose runs to show.", show_default="what the last suite ran")
    ] = None,
    dataset: DatasetOption = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
    authors: Annotated[str | None, typer.Option(help="Authors, separated by semicolons.")] = None,
    course: Annotated[str | None, typer.Option(help="Course or institution.")] = None,
    date: Annotated[str | None, typer.Option(help="Date on the title page.")] = None,
    parameter: ParameterOption = None,
    notebook: Annotated[
        Path, typer.Option(help="Your own report notebook.", show_default="90_report", callback=_given_path)
    ] = NOTEBOOKS_DIR / "90_report.ipynb",
    formats: Annotated[str, typer.Option(help="pdf, html, docx and md, separated by commas.")] = "pdf,html",
    output_dir: Annotated[
        Path, typer.Option(help="Where report.pdf and report.html go.", show_default="report", callback=_given_path)
    ] = PROJECT_ROOT / "report",
    list_values: Annotated[
        bool, typer.Option("--list-values", help="Show what texts may name, and make nothing.")
    ] = False,
) -> None:
    """Make the report of finished runs as PDF and HTML; missing runs are named in it."""
    from audioclf_lib.cli.tables import show, shown_path
    from audioclf_lib.suite.notebooks import skip_address_grammars
    from audioclf_lib.suite.plan import absolute_plan

    skip_address_grammars()
    from audioclf_lib.report.build import build_report

    if list_values:
        from audioclf_lib.report.gather import gather
        from audioclf_lib.report.values import report_values

        for name, value in report_values(gather(absolute_plan(plan or ""), runs_dir, dataset)).items():
            show(f"{{{{ {name} }}}}  {value.write()}")
        return
    files = build_report(
        absolute_plan(plan or ""),
        dataset=dataset or "",
        runs_dir=runs_dir,
        output_dir=output_dir,
        formats=[name.strip() for name in formats.split(",")],
        notebook=notebook,
        say=typer.echo,
        **_options(context, "title", "authors", "course", "date") | _parse_parameters(parameter),
    )
    for path in files:
        show(f"report: {shown_path(path)}")


@app.command()
def tune(
    context: typer.Context,
    study: Annotated[
        str, typer.Argument(help="cnn, transformer, or a YAML file like workflow/studies/cnn.yaml.")
    ] = "cnn",
    dataset: DatasetOption = None,
    epochs: EpochsOption = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials of the study in all, those that are done included.")
    ] = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    runs_dir: OwnRunsDirOption = None,
) -> None:
    """Search settings of the recipe by Optuna; the same command in several terminals or jobs works on one study."""
    from audioclf_lib.cli.tables import show, study_table
    from audioclf_lib.data import load_dataset
    from audioclf_lib.suite.search import load_study, run_study
    from audioclf_lib.training.environment import choose_device

    changes = _options(context, "dataset", "epochs", "trials", "seed", "device", "runs_dir")
    chosen = load_study(study).changed(**changes)
    choose_device(chosen.experiment.device)  # raises if it is not present
    recordings = load_dataset(chosen.experiment.dataset, with_folds=chosen.experiment.named_folds)
    typer.echo(f"study {chosen.study_id(recordings)} on {recordings.name}, {chosen.trials} trials")
    found = run_study(chosen, recordings, say=typer.echo)
    show(study_table(found))
    if found.best is not None:
        typer.echo(f"best settings, for --recipe-changes: {json.dumps(found.best.recipe_changes)}")
        typer.echo(f"settings of its model: {json.dumps(found.best.model_settings)}")


app.command()(predict)
app.command()(export)
app.command()(card)


def main() -> None:
    """Entry point of the command."""
    warnings.formatwarning = lambda message, *_, **__: f"audioclf: {one_line(str(message))}\n"  # without our code
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ± or – shows a question mark
    try:
        code = app(prog_name="audioclf", standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            print("stopped; run the same command again to go on", file=sys.stderr)
    except InputError as error:
        code = _refuse("audioclf", str(error))
    except ModuleNotFoundError as error:
        code = _refuse("audioclf", f"{error.name} is missing; `{sys.executable} -m pip install audioclf` brings it")
    except RuntimeError as error:
        if not (notebook := getattr(error, "notebook", None)):  # a NotebookError, whose module takes long to import
            raise
        print(f"{notebook.name.partition('.')[0]}: {error}\nsee {notebook}", file=sys.stderr)
        code = FAILED
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "audioclf"
        message = error.format_message().replace("Value error, ", "").rstrip(".")
        code = _refuse(command, f"{message}; `{command} --help` lists what there is")
    sys.exit(code or 0)


def _refuse(command: str, sentence: str) -> int:
    """Say what is wrong in one line."""
    print(f"{command}: {one_line(sentence)}", file=sys.stderr)
    return BAD_INPUT


def _parse_experiment(target: str, given: dict[str, Any]) -> Experiment | None:
    """``transformer-h4-kfold`` or the file of a model as an experiment with the ``given`` settings; None if neither."""
    from audioclf_lib.config import Experiment
    from audioclf_lib.models import find_model
    from audioclf_lib.suite.plan import resolve_model

    if re.search(r"\.py(:|$)", target):
        said: dict[str, Any] = {"model": resolve_model(target)}
    else:
        match = re.fullmatch(r"([a-z0-9-]+?)(?:-h([0-9]{1,9}))?-(kfold|split|rotation)", target)
        if match is None:
            return None
        try:
            find_model(match[1])
        except InputError:
            return None
        said = {"model": match[1], "protocol": match[3]} | ({"num_heads": int(match[2])} if match[2] else {})
    for name in said:
        if name in given:
            raise InputError(f"the experiment's name {target} says what {name} is; leave the parameter {name} out")
    return Experiment(**(given | said))


def _find_notebook(target: str, folder: Path) -> Path:
    for path in (user_path(target), folder / target, folder / f"{target}.ipynb"):
        if path.is_file():
            return path.resolve()
    known = ", ".join(sorted(path.stem for path in folder.glob("*.ipynb")))
    raise InputError(
        f"{quote(target)} is neither an experiment (such as cnn-kfold) nor a notebook; notebooks are {known}"
    )


def _told_apart(parameters: dict[str, Any]) -> str:
    """Part of a file's name that tells runs with other parameters apart: ``-epochs5-seed1``."""
    parts = "".join(f"-{name}{value}" for name, value in parameters.items() if name != "runs_dir")
    return re.sub(r"[^\w.]+", "-", parts)[:100].rstrip("-")


def _parse_parameters(texts: Sequence[str] | None) -> dict[str, Any]:
    """Each ``name=value``: numbers, truths, null and lists as JSON, all else as text."""
    parameters: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not equals:
            raise InputError(f"parameter {quote(text)} is not understood; write it as name=value")
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):  # not JSON, a number of too many digits, too many brackets
            parsed = value
        parameters[name] = value if isinstance(parsed, dict) else parsed  # notebooks take objects as JSON text
    return parameters
