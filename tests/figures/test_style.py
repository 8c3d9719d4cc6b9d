"""Lines can be told apart in colour and in grey print."""

from matplotlib.colors import to_rgba

from audioclf_lib.figures.style import line_looks


def test_neighbouring_lines_differ_in_style_and_no_two_of_many_are_alike():
    looks = [(to_rgba(look["color"]), look["linestyle"]) for look in line_looks(35)]
    assert len(set(looks)) == 35
    assert len({style for _, style in looks[:5]}) == 5
