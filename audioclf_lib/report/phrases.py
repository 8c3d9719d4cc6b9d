"""Small phrases that the readings are made of: shares, counts, lists and names in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from audioclf_lib.metrics.uncertainty import Interval
from audioclf_lib.report.results import ExperimentResult, mean_and_std
from audioclf_lib.report.show import escape_markdown

NBSP = "\N{NO-BREAK SPACE}"


def percent(value: float, decimals: int = 1) -> str:
    """``61.1 %`` with a space that does not break."""
    return f"{100 * value:.{decimals}f}{NBSP}%"


def percent_with_std(values: Sequence[float]) -> str:
    """``61.1 ± 2.3 %``, or the value alone where there is one."""
    mean, std = mean_and_std(values)
    return percent(mean) if std is None else f"{100 * mean:.1f} ± {100 * std:.1f}{NBSP}%"


def percent_with_interval(values: Sequence[float], interval: Interval) -> str:
    """``61.1 ± 2.3 % (55.0 to 66.9)`` for table cells, which may break before the bracket."""
    low, high = (f"{100 * end:.1f}" for end in interval)
    return f"{percent_with_std(values).replace(' ', NBSP)} ({low}{NBSP}to{NBSP}{high})"


def quote(class_name: object) -> str:
    return f"*{escape_markdown(class_name)}*"


def enumerate_words(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def count(number: int, noun: str) -> str:
    """``1 fit``, ``4 fits``."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def are(number: int) -> str:
    return "is" if number == 1 else "are"


def span(values: Sequence[float]) -> str:
    """``61.1 %``, or ``55.0 to 61.1 %``."""
    low, high = min(values), max(values)
    return percent(low) if percent(low) == percent(high) else f"{100 * low:.1f} to {percent(high)}"


def between(interval: Interval) -> str:
    """``55.0 to 61.1 %``; both ends, even where they are alike."""
    return f"{100 * interval.low:.1f} to {percent(interval.high)}"


def p_value(p: float) -> str:
    """``0.034``, ``< 0.001``."""
    return f"{p:.3f}" if p >= 0.0005 else f"<{NBSP}0.001"


def equals(p: float) -> str:
    """``p = 0.034``, ``p < 0.001``."""
    return f"p{NBSP}{p_value(p)}" if p_value(p).startswith("<") else f"p{NBSP}={NBSP}{p_value(p)}"


def with_heads(architecture: str) -> str:
    """An architecture's title within a sentence: ``Transformer, 2 heads`` -> ``Transformer with 2 heads``."""
    return architecture.replace(", ", " with ")


def in_words(result: ExperimentResult) -> str:
    """The architecture within a sentence: ``the CNN``, ``the Transformer with 2 heads (seed 1)``."""
    model = escape_markdown(with_heads(result.architecture))
    seed = f" (seed {result.experiment.seed})" if result.experiment.seed else ""
    return f"the {model}{seed}"


def describe_dataset_name(name: str) -> str:
    known = {"demo": "the demo set of generated sounds", "esc10": "ESC-10", "esc50": "ESC-50"}
    return known.get(name, f"the data set {quote(name)}")
