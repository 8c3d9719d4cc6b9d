"""The ``audioclf`` command.

Exit codes: 0 all done, 1 something failed, 2 bad input (one sentence on stderr), 130 stopped by Ctrl-C or a signal.
What takes long to import is imported by the command that needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from audioclf_lib._support.durations import describe_estimate, describe_seconds
from audioclf_lib._support.errors import InputError, one_line, quote
from audioclf_lib._support.paths import DEFAULT_RUNS_DIR, PROJECT_ROOT, user_path
from audioclf_lib.config import DeviceName, Experiment, RecipeName
from audioclf_lib.suite.plan import Sweep, absolute_plan, load_plan, load_sweep, resolve_dataset

if TYPE_CHECKING:
    from audioclf_lib.data import Dataset
    from audioclf_lib.suite.forecast import Forecast
    from audioclf_lib.suite.jobs import Job
    from audioclf_lib.suite.run import Outcome
    from audioclf_lib.suite.search import StudyResult

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
MAX_ROWS = 40  # of a dry run's table; beyond that, runs of one kind share a row

app = typer.Typer(
    help="Audio classification as a course report: data, experiments in notebooks, and the report made of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DatasetOption = Annotated[
    str | None, typer.Option("--dataset", "-d", help="demo, esc10, or a folder: ESC-10, ESC-50 or your own.")
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", "-e", help="Epochs of every fit.")]
TestFoldOption = Annotated[int | None, typer.Option(help="Fold that is never trained on.")]
RecipeOption = Annotated[RecipeName | None, typer.Option(help="How fits are trained.")]
RecipeChangesOption = Annotated[
    str | None, typer.Option(help='Recipe settings to change, as a JSON object: {"dropout": 0.3}.')
]
DeviceOption = Annotated[DeviceName, typer.Option(help="Where to compute.")]


def _given_path(path: Path | None) -> Path | None:
    """Every path that a user gives goes through this."""
    return None if path is None else user_path(path)


RunsDirOption = Annotated[
    Path,
    typer.Option(
        help="Where run folders and executed notebooks are kept.", show_default="report/runs", callback=_given_path
    ),
]


@app.command()
def data(
    name_or_path: Annotated[str, typer.Argument(help="demo, esc10, or a folder with recordings.")] = "demo",
) -> None:
    """Load and check a data set (downloading esc10 if there is no copy), and say what it holds."""
    with _stopped_politely("run the same command again"):
        from audioclf_lib.data import DEFAULT_DATA_DIR, load_dataset

        dataset = load_dataset(resolve_dataset(name_or_path))
        _console().print(_dataset_table(dataset, DEFAULT_DATA_DIR))


@app.command()
def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT|NOTEBOOK",
            help="An experiment (cnn-kfold, cnn-split, transformer-h4-kfold, ...) or a notebook's name or path.",
        ),
    ],
    dataset: DatasetOption = None,
    epochs: EpochsOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every fit.")] = None,
    test_fold: TestFoldOption = None,
    recipe: RecipeOption = None,
    recipe_changes: RecipeChangesOption = None,
    device: Annotated[DeviceName | None, typer.Option(help="Where to compute.")] = None,
    runs_dir: Annotated[Path | None, typer.Option(help="Where run folders are kept.", callback=_given_path)] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Any parameter of the notebook; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the executed notebook goes.", callback=_given_path)
    ] = None,
) -> None:
    """Run one notebook in batch, as an experiment of the suite or with parameters of your own."""
    given: dict[str, Any] = {
        "dataset": resolve_dataset(dataset) if dataset else None,
        "epochs": epochs,
        "seed": seed,
        "test_fold": test_fold,
        "recipe": recipe,
        "recipe_changes": recipe_changes,
        "device": device,
        "runs_dir": str(runs_dir.resolve()) if runs_dir else None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    given |= _parse_parameters(parameter or [])
    with _stopped_politely("run the same command again to go on"):
        from audioclf_lib.runs.store import RunStore
        from audioclf_lib.suite.execution import NotebookError, run_notebook
        from audioclf_lib.suite.jobs import NOTEBOOKS_DIR, experiment_job
        from audioclf_lib.suite.run import outcome
        from audioclf_lib.training.trainer import choose_device

        experiment = _parse_experiment(target, given)
        if experiment:
            choose_device(experiment.device)  # raises if it is not present
            job = experiment_job(experiment)
            outcome(job, RunStore(experiment.runs_dir))  # raises if something else is in the place of a run folder
            notebook, place, parameters = job.notebook, job.output, job.parameters
        else:
            notebook = _find_notebook(target, NOTEBOOKS_DIR)
            place, parameters = Path(f"{notebook.stem}-executed.ipynb"), given
        try:
            executed = run_notebook(notebook, output or place, parameters, on_wait=_say_waiting)
        except NotebookError as error:
            _stderr(f"{notebook.name}: {error}\nsee {_shown(error.notebook)}")
            raise typer.Exit(FAILED) from None
        _console().print(f"executed notebook: {_shown(executed)}", highlight=False, soft_wrap=True)


@app.command()
def suite(
    plan: Annotated[str, typer.Option("--plan", help="demo, full, or a YAML file like workflow/plans/demo.yaml.")] = (
        "demo"
    ),
    dataset: DatasetOption = None,
    epochs: EpochsOption = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, separated by commas: 0,1,2.")] = None,
    test_fold: TestFoldOption = None,
    recipe: RecipeOption = None,
    recipe_changes: RecipeChangesOption = None,
    device: DeviceOption = "auto",
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Notebooks at once; on this machine they share the cores.",
            show_default="one per core, or per GPU; elsewhere the profile says",
        ),
    ] = None,
    notebooks_dir: Annotated[
        Path, typer.Option(help="Where the notebooks are.", show_default="notebooks", callback=_given_path)
    ] = PROJECT_ROOT / "notebooks",
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
    chosen = load_sweep(plan).changed(
        dataset=resolve_dataset(dataset) if dataset else None,
        epochs=epochs,
        seeds=_parse_seeds(seeds),
        test_fold=test_fold,
        recipe=recipe,
        recipe_changes=_parse_object(recipe_changes),
    )
    with _stopped_politely("run the same command again to go on"):
        console = _console()
        console.print(_describe_plan(chosen), highlight=False)
        if dry_run:
            from audioclf_lib.suite.forecast import forecast
            from audioclf_lib.suite.profiles import find_profile

            at_once = jobs or find_profile(on).jobs
            expected = forecast(chosen, runs_dir=runs_dir, device=device, jobs=at_once, notebooks_dir=notebooks_dir)
            console.print(_forecast_table(expected))
            for line in _describe_forecast(expected):
                console.print(line, highlight=False)
            return
        from audioclf_lib.suite.run import run_suite

        outcomes = run_suite(
            chosen, runs_dir=runs_dir, device=device, jobs=jobs, on=on, notebooks_dir=notebooks_dir, say=_say
        )
        console.print(_suite_table(outcomes))
        failures = [outcome for outcome in outcomes if outcome.state != "done"]
        if failures:
            console.print(_failure_table(failures))
            raise typer.Exit(FAILED)


@app.command()
def report(
    plan: Annotated[
        str | None, typer.Option("--plan", help="Whose runs to show.", show_default="what the last suite ran")
    ] = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
    authors: Annotated[str | None, typer.Option(help="Authors, separated by semicolons.")] = None,
    course: Annotated[str | None, typer.Option(help="Course or institution.")] = None,
    date: Annotated[str | None, typer.Option(help="Date on the title page.")] = None,
    formats: Annotated[str, typer.Option(help="pdf, html, or both separated by a comma.")] = "pdf,html",
    output_dir: Annotated[
        Path, typer.Option(help="Where report.pdf and report.html go.", show_default="report", callback=_given_path)
    ] = PROJECT_ROOT / "report",
) -> None:
    """Make the report of finished runs as PDF and HTML; missing runs are named in it."""
    last = runs_dir / "plan.yaml"
    chosen = plan or (str(last) if last.exists() else "demo")
    load_plan(chosen)
    with _stopped_politely("run the same command again"):
        from audioclf_lib.report.build import build_report
        from audioclf_lib.suite.execution import NotebookError

        try:
            files = build_report(
                absolute_plan(chosen),
                runs_dir=runs_dir,
                output_dir=output_dir,
                formats=[name.strip() for name in formats.split(",")],
                title=title,
                authors=authors,
                course=course,
                date=date,
            )
        except NotebookError as error:
            _stderr(f"the report notebook: {error}\nsee {_shown(error.notebook)}")
            raise typer.Exit(FAILED) from None
        for path in files:
            _console().print(f"report: {_shown(path)}", highlight=False, soft_wrap=True)


@app.command()
def tune(
    study: Annotated[
        str, typer.Argument(help="cnn, transformer, or a YAML file like workflow/studies/cnn.yaml.")
    ] = "cnn",
    dataset: DatasetOption = None,
    epochs: EpochsOption = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials of the study in all, those that are done included.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every fit and of the search.")] = None,
    device: Annotated[DeviceName | None, typer.Option(help="Where to compute.")] = None,
    runs_dir: Annotated[
        Path | None, typer.Option(help="Where run folders and studies are kept.", callback=_given_path)
    ] = None,
) -> None:
    """Search settings of the recipe by Optuna; the same command in several terminals or jobs works on one study."""
    with _stopped_politely("run the same command again to go on"):
        from audioclf_lib.data import load_dataset
        from audioclf_lib.suite.search import load_study, run_study
        from audioclf_lib.training.environment import choose_device

        chosen = load_study(study).changed(
            dataset=resolve_dataset(dataset) if dataset else None,
            epochs=epochs,
            trials=trials,
            seed=seed,
            device=device,
            runs_dir=runs_dir,
        )

        choose_device(chosen.experiment.device)  # raises if it is not present
        recordings = load_dataset(chosen.experiment.dataset, with_folds=chosen.experiment.named_folds)
        _say(f"study {chosen.study_id(recordings)} on {recordings.name}, {chosen.trials} trials")
        found = run_study(chosen, recordings, say=_say)
        _console().print(_study_table(found))
        if found.best is None:
            _say("no trial was trained to the end, so there are no best settings")
        else:
            _say(f"best settings, for --recipe-changes: {json.dumps(found.best.recipe_changes)}")
            _say(f"settings of its model: {json.dumps(found.best.model_settings)}")


def main() -> None:
    """Entry point of the command."""
    try:
        code = app(prog_name="audioclf", standalone_mode=False)
    except InputError as error:
        code = _refuse("audioclf", str(error))
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "audioclf"
        if len(sys.argv) == 1:  # nothing was asked for: the message is the help
            _stderr(str(error))
            code = BAD_INPUT
        else:
            message = error.format_message().replace("Value error, ", "").rstrip(".")
            code = _refuse(command, f"{message}; `{command} --help` lists what there is")
    sys.exit(code or 0)


def _refuse(command: str, sentence: str) -> int:
    """Say what is wrong in one line."""
    _stderr(f"{command}: {one_line(sentence)}")
    return BAD_INPUT


@contextmanager
def _stopped_politely(advice: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        _stderr(f"stopped; {advice}")
        raise typer.Exit(INTERRUPTED) from None


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 110)


def _stderr(text: str) -> None:
    print(text, file=sys.stderr)


def _say(line: str) -> None:
    print(line, flush=True)


def _say_waiting(holder: str) -> None:
    _stderr(f"waiting for {holder}, which runs the same notebook")


def _shown(path: Path) -> str:
    """A path as the user would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _parse_experiment(target: str, given: dict[str, Any]) -> Experiment | None:
    """``transformer-h4-kfold`` -> the experiment with the ``given`` settings; None if ``target`` is no such name."""
    match = re.fullmatch(r"(cnn|transformer)(?:-h([0-9]{1,9}))?-(kfold|split)", target)
    if match is None:
        return None
    model, heads, protocol = match.groups()
    said = {"model": model, "protocol": protocol} | ({"num_heads": int(heads)} if heads else {})
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


def _parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """``name=value`` -> parameters; numbers, true, false, null and lists are read as JSON, anything else is text."""
    parameters: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not equals:
            raise InputError(f"parameter {quote(text)} is not understood; write it as name=value")
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):  # not JSON, a number of too many digits, too many brackets
            parsed = value
        parameters[name] = value if isinstance(parsed, dict) else parsed  # notebooks take objects as JSON text
    return parameters


def _parse_seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        example = "write whole numbers separated by commas: 0,1,2"
        raise InputError(f"seeds {quote(text)} are not understood; {example}") from None


def _parse_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f'recipe changes {quote(text)} are no JSON object; write for example {{"dropout": 0.3}}')
    return value


def _describe_plan(sweep: Sweep) -> str:
    plans = list(sweep.plans.values())
    plan, n_checks = plans[0], max(len(each.checks) for each in plans)
    epochs = "1 epoch" if plan.epochs == 1 else f"{plan.epochs} epochs"
    checks = {0: "", 1: " and 1 check"}.get(n_checks, f" and {n_checks} checks")
    what = [f"{len(plan.experiments)} experiments{checks}", epochs, _counted("seed", plan.seeds)]
    what.append(_counted("recipe", dict.fromkeys(each.recipe for each in plans)))
    if any("learning_rate" in marks for marks in sweep.marks):
        what.append(_counted("learning rate", dict.fromkeys(each.recipe_changes["learning_rate"] for each in plans)))
    if any("test_fold" in marks for marks in sweep.marks):
        what.append(_counted("test fold", dict.fromkeys(each.test_fold for each in plans)))
    diagnosis = ", and a diagnosis" if plan.diagnosis_epochs else ""
    several = f" ({len(plans)} plans)" if len(plans) > 1 else ""
    where = " and ".join(dict.fromkeys(each.dataset for each in plans))
    return escape(f"plan {plan.name} on {where}: {', '.join(what)}{diagnosis}{several}")


def _counted(name: str, values: Iterable[object]) -> str:
    """``seed 0``, ``seeds 0, 1``."""
    texts = list(map(str, values))
    return f"{name}{'' if len(texts) == 1 else 's'} {', '.join(texts)}"


def _dataset_table(dataset: Dataset, data_dir: Path) -> Table:
    table = Table(title=f"Data set {escape(dataset.name)}", box=box.SIMPLE, show_header=False, title_justify="left")
    folds = sorted({int(fold) for fold in dataset.folds})
    per_fold = ", ".join(f"{fold}: {int((dataset.folds == fold).sum())}" for fold in folds)
    n_windows = dataset.silent.shape[1]
    n_silent = int(dataset.silent.sum())
    rows = {
        "clips": f"{len(dataset)} of {dataset.waveforms.shape[1] / dataset.sample_rate:g} s",
        "classes": f"{len(dataset.class_names)}: {', '.join(dataset.class_names)}",
        "clips per fold": per_fold,
        "windows": f"{n_windows} per clip, {dataset.silent.size} in all",
        "silent windows": f"{n_silent} ({100 * n_silent / dataset.silent.size:.1f} %)",
        "fingerprint": dataset.fingerprint,
        "licence": dataset.licence,
        "kept in": str(data_dir),
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def _forecast_table(expected: Forecast) -> Table:
    """A row for each run, or, where that would be too many, for each kind of run."""
    from audioclf_lib.suite.jobs import distinct_fits

    rows: dict[str, list[Job]] = {}
    for job in expected.jobs:
        rows.setdefault(job.title if len(expected.jobs) <= MAX_ROWS else job.kind, []).append(job)
    table = Table(title="What is done", box=box.SIMPLE, title_justify="left")
    for name in ("experiment", "runs", "fits"):
        table.add_column(name, justify="left" if name == "experiment" else "right", no_wrap=True)
    for name, jobs in rows.items():
        fits = distinct_fits(jobs)
        n_done = sum(job.key in expected.done for job in jobs)
        trained = f"{sum(key in expected.trained for key in fits)}/{len(fits)}" if fits else "–"
        table.add_row(escape(name), f"{n_done}/{len(jobs)}", trained)
    return table


def _describe_forecast(expected: Forecast) -> list[str]:
    """What is left, and how long that takes as far as finished fits tell."""
    left = len(expected.jobs) - len(expected.done)
    lines = [
        f"{left} of {len(expected.jobs)} runs are to do; "
        f"{len(expected.trained)} of {len(expected.fits)} different fits are trained"
    ]
    if expected.seconds is None and expected.paces:
        return [*lines, "no finished fit tells how long an epoch takes, so the time is not known"]
    if expected.seconds is not None:
        at_once = "one run at a time" if expected.at_once == 1 else f"{expected.at_once} runs at a time"
        lines.append(f"about {describe_estimate(expected.seconds)} of training left, {at_once}, reckoned from")
    for (dataset, label), pace in expected.paces.items():
        if pace is None:
            lines.append(f"  {label} on {dataset}: no finished fit tells how long an epoch takes, so it is not counted")
        else:
            which = f"{pace.source}, median of {pace.runs}" if pace.runs > 1 else f"{pace.source}, one"
            lines.append(f"  {label} on {dataset}: {pace.seconds:.2g} s an epoch ({which}, on {pace.device})")
    return [escape(line) for line in lines]


def _suite_table(outcomes: Sequence[Outcome]) -> Table:
    from audioclf_lib.suite.run import describe_accuracy

    table = Table(
        title="Accuracy on the test fold (mean ± standard deviation over the fits)",
        box=box.SIMPLE,
        title_justify="left",
    )
    for name in ("experiment", "status", "time", "fits", "windows", "clips"):
        table.add_column(name, justify="left" if name in ("experiment", "status") else "right", no_wrap=True)
    for outcome in outcomes:
        if outcome.job.fits and not (outcome.job.for_others and outcome.state == "done"):
            table.add_row(
                escape(outcome.job.title),
                outcome.state,
                describe_seconds(outcome.status.seconds) if outcome.status else "–",
                f"{outcome.fits_done}/{len(outcome.job.fits)}",
                describe_accuracy(outcome.accuracy.get("window")),
                describe_accuracy(outcome.accuracy.get("clip")),
            )
    return table


def _study_table(found: StudyResult) -> Table:
    table = Table(title="Accuracy on the validation fold, the best first", box=box.SIMPLE, title_justify="left")
    for name in ("trial", "state", "epochs", "windows", "clips"):
        table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for row in found.table.to_dict(orient="records"):
        shares = (row["accuracy"], row["clip_accuracy"])
        shown = ("–" if share != share else f"{100 * share:.1f} %" for share in shares)
        settings = ", ".join(f"{name} {row[name]}" for name in found.config.search)
        table.add_row(str(row["trial"]), row["state"], str(row["epochs"]), *shown, settings)
    return table


def _failure_table(failures: Sequence[Outcome]) -> Table:
    from audioclf_lib.suite.status import failed_path

    table = Table(title="Not done", box=box.SIMPLE, title_justify="left")
    for name in ("notebook", "cell", "what happened"):
        table.add_column(name, overflow="fold")
    for outcome in failures:
        status, cell = outcome.status, ""
        if status is not None and status.state == "failed":
            cell = f"[{status.cell}]" if status.cell is not None else ""
            what = f"{status.error}: {status.message}"
            if failed_path(outcome.job.output).exists():
                what += f"\nsee {_shown(failed_path(outcome.job.output))}"
        elif outcome.state == "stopped":
            what = "stopped before it was done; run the same command again to go on"
        elif outcome.job.after:
            what = "was not started, since not all runs of its folds are done"
        else:
            what = "was not started"
        table.add_row(escape(outcome.job.title), escape(cell), escape(what))
    return table


if __name__ == "__main__":
    main()
