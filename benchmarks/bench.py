"""Training and scoring speed, measured side by side: `make bench` prints tables and writes results.json.

Rounds are interleaved, so that a machine whose speed drifts slows all contenders alike; ratios are taken round by
round and their median is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import audioclf_lib  # noqa: F401 (before torch: it sets what torch reads when it is loaded)
import torch

sys.path.insert(0, str(Path(__file__).parent))
from contenders import CPU, Contender, make_contenders, make_dataset, ours, sgemm_gflops, some_windows

from audioclf_lib.training.accelerate.compiled import compile_kernels, find_compiler
from audioclf_lib.training.batches import all_windows
from audioclf_lib.config import Experiment, make_recipe
from audioclf_lib.training.trainer import fit

RESULTS = Path(__file__).with_name("results.json")
# Multiply-adds of one window's forward pass, from the layers' sizes; backward takes twice as many.
MULTIPLY_ADDS = {
    "cnn": 8000 * 128 * 7 + 2000 * 64 * 128 * 5 + 500 * 32 * 64 * 3 + 80_000,
    "transformer": 8000 * 128 * 7
    + 2000 * 64 * 128 * 5
    + 500 * 32 * 64 * 3
    + 2 * 33 * (250 * 750 + 250 * 250 + 2 * 250 * 2048 + 2 * 33 * 250)
    + 2500,
}
FULL_SUITE_EPOCHS = 100

Measured = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="measure these sections of results.json anew, keep the others")
    parser.add_argument("--task", help=argparse.SUPPRESS)  # a measurement in a process of its own
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.task:
        print(json.dumps(TASKS[arguments.task](arguments.threads)))
        return
    results: Measured = json.loads(RESULTS.read_text()) if arguments.only and RESULTS.exists() else {}
    for name, measure in sections(arguments.rounds, arguments.threads).items():
        if not arguments.only or name in arguments.only:
            print(f"measuring {name}", flush=True)
            results[name] = measure()
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print_tables(results)


def sections(rounds: int, threads: int) -> dict[str, Callable[[], Measured]]:
    """What is measured, by its name in results.json."""
    clips = (100, 200, 400, 2000)
    return {
        "machine": lambda: describe_machine(threads),
        "cnn": lambda: compare("cnn", {}, rounds),
        "transformer": lambda: compare("transformer", {"num_heads": 4}, rounds),
        "settings": lambda: compare_settings(rounds),
        "heads": lambda: compare_heads(rounds),
        "esc10_epoch": lambda: {
            f"{model}.{n}_threads": in_process(f"epoch-{model}", n) for model in ("cnn", "transformer") for n in (1, 2)
        },
        "workers": compare_workers,
        "compile": compile_time,
        "budget_ms_per_window": lambda: {name: in_process(f"budget-{name}", 1) for name in ("eager", "ours")},
        "clips": lambda: {str(n): in_process(f"clips-{n}", threads) for n in clips},
        "dry_run": look_at_a_thousand_runs,
    }


def describe_machine(threads: int) -> Measured:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def spread(values: list[float]) -> Measured:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": len(values)}


def compare(model: str, settings: dict[str, int], rounds: int) -> Measured:
    """All contenders on one architecture, training and scoring."""
    contenders = make_contenders(model, settings, n_train=192, n_score=384)
    print(f"{model}: warming up (compiling takes a while)", flush=True)
    for contender in contenders:
        contender.train(), contender.score()
    rates: dict[str, dict[str, list[float]]] = {c.name: {"train": [], "score": []} for c in contenders}
    gflops = []
    for index in range(rounds):
        gflops.append(sgemm_gflops())
        for contender in contenders:
            rates[contender.name]["train"].append(contender.train())
            rates[contender.name]["score"].append(contender.score())
        print(f"{model}: round {index + 1} of {rounds}", flush=True)
    floor = statistics.median(gflops) * 1e9 / (6 * MULTIPLY_ADDS[model])  # forward and backward, two operations each
    result: Measured = {"sgemm_gflops": spread(gflops), "floor_windows_per_second": floor}
    for kind in ("train", "score"):
        mine = rates["ours"][kind]
        result[kind] = {name: spread(rates[name][kind]) for name in rates}
        for name, key in (("eager", "eager"), ("Lightning", "lightning"), ("torch.compile", "compile")):
            ratios = [a / b for a, b in zip(mine, rates[name][kind], strict=True)]
            result[kind][f"ratio_vs_{key}"] = statistics.median(ratios)
    result["train"]["floor_share"] = result["train"]["ours"]["median"] / floor
    return result


def interleave(contenders: list[Contender], rounds: int) -> dict[str, Measured]:
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        contender.train()
    for _ in range(rounds):
        for contender in contenders:
            rates[contender.name].append(contender.train())
    return {name: spread(values) for name, values in rates.items()}


def compare_settings(rounds: int) -> Measured:
    """Ours with other dropout rates and ReLU, which recipes use."""
    windows = some_windows(320)
    contenders = []
    for rate, activation in ((0.5, "none"), (0.2, "none"), (0.5, "relu"), (0.2, "relu")):
        recipe = make_recipe("as-written", "cnn", {"dropout": rate, "activation": activation})
        contenders.append(ours(f"dropout {rate}, {activation}", "cnn", {}, recipe, windows, windows))
    return interleave(contenders, rounds)


def compare_heads(rounds: int) -> Measured:
    """Ours with 1, 2 and 4 heads."""
    windows, recipe = some_windows(320), make_recipe("as-written", "transformer")
    return interleave(
        [ours(str(h), "transformer", {"num_heads": h}, recipe, windows, windows) for h in (1, 2, 4)], rounds
    )


# What the profiler's operators belong to, in the order of looking.
PARTS = {
    "dropout's random numbers": ("bernoulli",),
    "convolution, backward": ("convolution_backward",),
    "convolution, forward": ("mkldnn_convolution",),
    "stem (convolution 1 to pool 1), forward": ("_Stem",),
    "stem, backward": ("_StemBackward",),
    "batch norm, dropout and pool 2 and 3": ("_NormPool",),
    "batch norm": ("batch_norm",),
    "pooling": ("max_pool", "avg_pool"),
    "optimizer": ("Optimizer", "_fused_adam", "_foreach"),
}


def budget(name: str) -> Measured:
    """Milliseconds of one thread per training window, by part, from torch's profiler over one epoch."""
    from torch.profiler import ProfilerActivity, profile

    contenders = make_contenders("cnn", {}, n_train=192, n_score=32, names=(name,))
    contenders[0].train()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        contenders[0].train()
    parts: Measured = dict.fromkeys([*PARTS, "everything else"], 0.0)
    for event in profiled.key_averages():
        of = [part for part, keys in PARTS.items() if any(key in event.key for key in keys)]
        of = ["stem, backward"] if "_StemBackward" in event.key else of
        parts[of[0] if of else "everything else"] += event.self_cpu_time_total / 1000 / 192
    return parts


def in_process(task: str, threads: int) -> Measured:
    """Run a measurement in a fresh process, so that its memory is its own."""
    print(f"{task} with {threads} threads", flush=True)
    command = [sys.executable, __file__, "--task", task, "--threads", str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    result: Measured = json.loads(output.splitlines()[-1])
    return result


def measure_epoch(model: str, n_clips: int = 400, epochs: int = 2) -> Measured:
    """Seconds of an epoch of a fit in the shape of ESC-10 (tuned recipe), what of it is scoring, and peak memory."""
    import audioclf_lib.training.trainer as training

    data = make_dataset(n_clips)
    scoring = 0.0

    def timed(function: Any) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal scoring
            start = time.perf_counter()
            result = function(*arguments, **options)
            scoring += time.perf_counter() - start
            return result

        return wrapper

    training.score_windows = timed(training.score_windows)
    training.reestimate_statistics = timed(training.reestimate_statistics)
    shares: list[float] = []

    def after_epoch(_config: object, history: list[dict[str, float]]) -> None:
        nonlocal scoring
        shares.append(scoring / history[-1]["seconds"])
        scoring = 0.0

    experiment = Experiment(model=model, protocol="split", epochs=epochs, threads=torch.get_num_threads())
    with TemporaryDirectory() as runs_dir:
        run = fit(experiment.fits(data)[0], data, runs_dir=runs_dir, device="cpu", progress=after_epoch)
        seconds = run.history["seconds"].tolist()
    return {
        "epoch_seconds": statistics.median(seconds[1:] or seconds),
        "evaluation_share": statistics.median(shares[1:] or shares),
        "peak_memory_mib": peak_memory(),
        "training_windows": len(all_windows(data, CPU)) * 3 // 5,
    }


def peak_memory() -> float:
    """MiB that this process had at most, from Linux: ``getrusage`` counts the process that started it, too."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def suite_hours(epochs: Measured) -> Measured:
    """The full suite, 4 CNN and 12 Transformer fits of 100 epochs, from the measured epochs.

    On two cores either one fit after another on two threads, or two at a time on one thread each.
    """

    def seconds(threads: int) -> float:
        cnn, transformer = (epochs[f"{m}.{threads}_threads"]["epoch_seconds"] for m in ("cnn", "transformer"))
        return float(FULL_SUITE_EPOCHS * (4 * cnn + 12 * transformer))

    return {"one_job_of_two_threads": seconds(2) / 3600, "two_jobs_of_one_thread": seconds(1) / 2 / 3600}


def compile_time() -> Measured:
    """Seconds to compile the kernels into an empty cache."""
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        compile_kernels(find_compiler(), Path(folder))
        return {"seconds": time.perf_counter() - start}


def run_fits(n_fits: int) -> Measured:
    """Seconds of ``n_fits`` equal short fits, one after another."""
    data = make_dataset(50)
    start = time.perf_counter()
    for seed in range(n_fits):
        with TemporaryDirectory() as runs_dir:
            fit(Experiment(model="cnn", protocol="split", epochs=2, seed=seed).fits(data)[0], data, runs_dir=runs_dir)
    return {"seconds": time.perf_counter() - start}


def compare_workers() -> Measured:
    """Eight equal fits on one and on two processes of one thread each; start-up is not counted."""
    print("eight fits on one and on two workers", flush=True)
    one = max(start_workers([8]))
    two = max(start_workers([4, 4]))
    return {"one_worker_seconds": one, "two_workers_seconds": two, "efficiency": one / (2 * two)}


def start_workers(shares: list[int]) -> list[float]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "--task", f"fits-{share}", "--threads", "1"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for share in shares
    ]
    return [json.loads(worker.communicate()[0].splitlines()[-1])["seconds"] for worker in workers]


def look_at_a_thousand_runs() -> Measured:
    """Processor seconds and peak memory of a dry run."""
    command = [sys.executable, str(Path(__file__).with_name("dry_run.py"))]
    result: Measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


TASKS: dict[str, Any] = {
    "epoch-cnn": lambda _: measure_epoch("cnn"),
    "epoch-transformer": lambda _: measure_epoch("transformer"),
    **{
        f"clips-{n}": lambda _, n=n: measure_epoch("cnn", n, epochs=2 if n < 1000 else 1) for n in (100, 200, 400, 2000)
    },
    "budget-eager": lambda _: budget("eager"),
    "budget-ours": lambda _: budget("ours"),
    **{f"fits-{n}": lambda _, n=n: run_fits(n) for n in (4, 8)},
}


def print_tables(results: Measured) -> None:
    for model in ("cnn", "transformer"):
        print(f"\n{model}: windows per second, median (min to max)")
        print(f"{'':16}{'training':>26}{'scoring':>26}")
        for name in ("ours", "eager", "torch.compile", "Lightning"):
            cells = [results[model][kind][name] for kind in ("train", "score")]
            print(
                f"{name:16}"
                + "".join(f"{c['median']:10.1f} ({c['min']:.1f} to {c['max']:.1f})".rjust(26) for c in cells)
            )
        train = results[model]["train"]
        print(
            f"training: {train['ratio_vs_eager']:.1f} times eager, {train['ratio_vs_lightning']:.1f} times Lightning, "
            f"{train['ratio_vs_compile']:.1f} times torch.compile; {train['floor_share']:.0%} of the arithmetic floor"
        )
    print("\ndropout and activation:", {name: round(v["median"], 1) for name, v in results["settings"].items()})
    print("heads:", {name: round(v["median"], 1) for name, v in results["heads"].items()})
    for name, value in results["esc10_epoch"].items():
        print(
            f"{name}: {value['epoch_seconds']:.1f} s an epoch, {value['evaluation_share']:.0%} of it evaluation, "
            f"peak memory {value['peak_memory_mib']:.0f} MiB"
        )
    print("full suite, hours:", {n: round(hours, 1) for n, hours in suite_hours(results["esc10_epoch"]).items()})
    print(f"compiling the kernels: {results['compile']['seconds']:.2f} s")
    print("clips -> s an epoch:", {name: round(v["epoch_seconds"], 1) for name, v in results["clips"].items()})
    for name, parts in results["budget_ms_per_window"].items():
        print(f"{name}, ms of one thread per window:", {part: round(ms, 2) for part, ms in parts.items() if ms >= 0.01})
    look = results["dry_run"]
    print(f"dry run of 1,009 runs: {look['processor_seconds']} s of one processor, {look['peak_memory_mib']} MiB")
    print(f"two workers: {results['workers']['efficiency']:.0%} efficiency")


if __name__ == "__main__":
    main()
