"""Lines can be told apart in colour and in grey print, and type can be read in every script."""

import io
import warnings

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgba

from audioclf_lib.figures import fonts as fonts_module
from audioclf_lib.figures.fonts import describe_missing_letters, fonts_for
from audioclf_lib.figures.style import SMALL, line_looks, literal


def test_neighbouring_lines_differ_in_style_and_no_two_of_many_are_alike():
    looks = [(to_rgba(look["color"]), look["linestyle"]) for look in line_looks(35)]
    assert len(set(looks)) == 35
    assert len({style for _, style in looks[:5]}) == 5


def test_no_type_is_smaller_than_seven_points():
    sizes = [
        size for name, size in plt.rcParams.items() if name.endswith(("labelsize", "fontsize", "titlesize", ".size"))
    ]
    numbers = [size for size in sizes if isinstance(size, float) and size > 5]
    assert min([SMALL, plt.rcParams["font.size"], *numbers]) >= 7


@pytest.mark.parametrize(
    "text", ["狗叫", "कुत्ते का भौंकना", "نباح", "สุนัข", "σκύλος", "собака", "🐶", "50 % of_a #b & c \\ <d>"]
)
def test_letters_of_the_world_are_drawn_and_none_is_a_box(text):
    fonts, lost = fonts_for(text)
    assert lost == ""
    name = literal(text)
    ax = plt.subplots()[1]
    ax.set_title(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that is missing
        ax.figure.savefig(io.BytesIO(), format="svg")
    assert all(font.is_file() for font in fonts)


def test_letters_that_no_font_has_are_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr(fonts_module, "package_files", tuple)
    monkeypatch.setattr(fonts_module, "_system_files", tuple)
    fonts, lost = fonts_for("a 狗 b 狗 叫")
    assert (fonts, lost) == ([], "狗叫")
    assert "no font has 狗 叫" in describe_missing_letters(lost)
    assert "install" in describe_missing_letters(lost)


def test_joiners_and_selectors_need_no_picture():
    assert fonts_for("क्\u200dष ❤\ufe0f")[1] == ""
