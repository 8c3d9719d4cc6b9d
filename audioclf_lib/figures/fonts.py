"""Fonts of figures and reports: one typeface for both, and for letters that it lacks the first font that has them.

The typeface is STIX, which comes with matplotlib and has Latin, Greek and Cyrillic. Other scripts and emoji come from
packages of fonts, then from the system's fonts. A font is chosen by the letters that it has, never by the name of a
language.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

FACE = "STIXGeneral"
# Looked for in this order; those of Chinese, Japanese and Korean share letters. The last two are not installed by us.
PACKAGES = ("manimgx_fonts", "pylopdf_fonts_zh_cn", "pylopdf_fonts_jp", "pylopdf_fonts_ko")
SANS_OF_A_SERIF = "NotoSansSC"  # beside Noto Serif SC, which goes with STIX


def face_files() -> list[Path]:
    """Regular, italic, bold and bold italic of the typeface."""
    return sorted(Path(mpl.get_data_path(), "fonts", "ttf").glob(f"{FACE}*.ttf"))


@cache
def package_files() -> tuple[Path, ...]:
    """The fonts of those ``PACKAGES`` that are installed."""
    specs = filter(None, map(find_spec, PACKAGES))
    folders = [Path(folder) for spec in specs for folder in spec.submodule_search_locations or ()]
    files = [file for folder in folders for file in sorted(folder.glob("*.[ot]tf"))]
    return tuple(file for file in files if "Italic" not in file.name and not file.name.startswith(SANS_OF_A_SERIF))


@cache
def letters_of(file: Path) -> frozenset[int]:
    """Code points that a font has; none if it cannot be read."""
    try:
        return frozenset(FT2Font(str(file)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def fonts_for(text: str) -> tuple[list[Path], str]:
    """Fonts for what the typeface lacks of a text, best first, and the letters that no font has, in their order."""
    wanted = dict.fromkeys(ord(letter) for letter in text if letter.isprintable() and not letter.isspace())
    # A joiner or a variation selector shapes its neighbours and needs no picture of its own.
    missing = {point for point in wanted if not (point in (0x200C, 0x200D) or 0xFE00 <= point <= 0xFE0F)}
    missing -= letters_of(face_files()[0])
    chosen = []
    for files in (package_files, _system_files):
        for file in files() if missing else ():
            if found := missing & letters_of(file):
                chosen.append(file)
                missing -= found
    return chosen, "".join(chr(point) for point in wanted if point in missing)


def describe_missing_letters(letters: str) -> str:
    """One sentence: what no font has, and what to install."""
    return (
        f"no font has {' '.join(letters[:20])}{' …' if len(letters) > 20 else ''}, which the report shows as boxes; "
        "install a font with them, such as Noto (fonts-noto of Debian and Ubuntu, or `pip install pylopdf-fonts-jp` "
        "or `pylopdf-fonts-ko`)"
    )


logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a weight that a font lacks is no news


@cache
def use_letters(text: str) -> str:
    """Let matplotlib find what the typeface lacks of a text from now on; a font more makes every text slower.

    Returns:
        The letters that no font has.
    """
    fonts, lost = fonts_for(text)
    for font in fonts:
        font_manager.fontManager.addfont(font)
        families = [*mpl.rcParams["font.family"], font_manager.fontManager.ttflist[-1].name]
        mpl.rcParams["font.family"] = list(dict.fromkeys(families))
    return lost


@cache
def _system_files() -> tuple[Path, ...]:
    return tuple(Path(file) for file in sorted(font_manager.findSystemFonts()))
