"""The report: what notebooks show (``show``), what runs say, and the export to PDF and HTML."""

from audioclf_lib.report.card import model_card
from audioclf_lib.report.show import (
    Markdown,
    escape_markdown,
    show,
    show_equation,
    show_sound,
    show_text,
    show_title_page,
)

__all__ = [
    "Markdown",
    "escape_markdown",
    "model_card",
    "show",
    "show_equation",
    "show_sound",
    "show_text",
    "show_title_page",
]
