"""The report: what notebooks show (``show``), what runs say, and the export to PDF and HTML."""

from audioclf_lib.report.show import escape_markdown, show, show_equation, show_sound, show_text, show_title_page

__all__ = ["escape_markdown", "show", "show_equation", "show_sound", "show_text", "show_title_page"]
