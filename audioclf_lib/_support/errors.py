"""The one exception for what a user can put right, and how what they gave is quoted in its message."""

from __future__ import annotations

import reprlib
import unicodedata

# Enough to know a value again; a plan of a few lines can hold one that would fill the memory when written out.
_QUOTE = reprlib.Repr()
_QUOTE.maxlevel, _QUOTE.maxlong = 2, 60
_QUOTE.maxstring = _QUOTE.maxother = 200


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message is one sentence that names the culprit and the remedy; the command line prints it without a traceback
    and ends with exit code 2.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of it: the sentence alone, since no line of code is at fault."""
        return [f"{type(self).__name__}: {self}"]


class DamagedRunError(InputError):
    """A file of a fit is missing or is not what was written.

    Attributes:
        what: which file, and what is wrong with it; the message has the remedy, too.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; restore it, or have `audioclf suite` set it aside and train the fit again")
        self.what = what


def quote(value: object) -> str:
    """A given value as Python writes it, cut short where it is long."""
    try:
        return _QUOTE.repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of too many digits"


def plain_reason(message: str) -> str:
    """A validation message of pydantic in plain words: ``it must be a valid integer``."""
    message = message.removeprefix("Value error, ").split(", unable to parse")[0]
    plain = message.replace("Input should be", "it must be").replace("valid tuple", "list").replace("valid ", "")
    plain = plain.replace("dictionary", "set of name: value pairs").replace("a integer", "an integer")
    return plain[:1].lower() + plain[1:]


def one_line(text: str) -> str:
    """Text for a terminal: line breaks are spaces, other characters that steer a terminal or text are written out."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in " ".join(text.split())
    )


def is_control(character: str) -> bool:
    """Whether no reader sees the character although it changes what is read.

    These are control characters, among them tabs and line breaks, halves of surrogate pairs, and those that embed or
    override the direction of writing, by which one text can be shown as another (Unicode TR 36, section 2.8).
    """
    steering = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return unicodedata.bidirectional(character) in steering or unicodedata.category(character) in ("Cc", "Cs")


def refuse_control_characters(what: str, text: str) -> None:
    """Raise InputError, naming ``what`` is wrong, if a text holds control characters; see ``is_control``."""
    for place, character in enumerate(text, start=1):
        if is_control(character):
            code = f"U+{ord(character):04X}"
            raise InputError(f"{what} holds the control character {code} at place {place}; take it out")
