"""Text is cut between two visible characters, and texts of the hub are valid UTF-8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.text import cut, to_one_line

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # one character of five code points
FLAG = "\U0001f1e9\U0001f1ea"
TEXT = st.text(
    st.sampled_from(["a", " ", "\r", "\n", "e", "\u0301", "\u200d", *FAMILY, *FLAG, "\ud83d", "\u0915", "\u094d"])
)


@pytest.mark.parametrize(
    ("text", "most", "start"),
    [
        ("short", 5, "short"),
        ("longer", 4, "long"),
        (f"ab{FAMILY}c", 7, f"ab{FAMILY}"),
        (f"ab{FAMILY}c", 6, "ab"),
        (f"ab{FAMILY}c", 3, "ab"),
        ("e\u0301e\u0301", 3, "e\u0301"),
        (FLAG * 300, 501, FLAG * 250),
        ("a\r\nb", 2, "a"),
    ],
)
def test_a_cut_is_between_two_characters(text: str, most: int, start: str) -> None:
    """Also if a character has several code points: an emoji, a flag, or a letter with a combining accent."""
    assert cut(text, most) == start


def test_the_mark_of_a_cut_counts() -> None:
    """The mark is added only if text is left out, and is part of the limit."""
    assert (
        cut("longer", 6, "…") == "longer" and cut("longer", 5, "…") == "long…" and cut(f"abc{FAMILY}", 5, "…") == "abc…"
    )


@pytest.mark.parametrize("most", [1, 300, 9_999])
def test_a_very_long_character_is_cut_too(most: int) -> None:
    """A character of ten thousand accents is longer than the limit: the cut is between two accents."""
    assert len(cut("e" + "\u0301" * 10_000, most)) == most


@given(TEXT, st.integers(0, 12))
def test_a_cut_is_a_bounded_prefix_of_any_text(text: str, most: int) -> None:
    start = cut(text, most)
    assert text.startswith(start) and len(start) <= most


@given(TEXT, st.integers(1, 12))
def test_to_one_line_returns_one_line_of_utf_8(text: str, most: int) -> None:
    """A lone surrogate is replaced."""
    line = to_one_line(text, most)
    assert line.encode().decode() == line and len(line) <= most and len(line.splitlines()) <= 1
