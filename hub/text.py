"""Prepare text for display: cut it between characters, replace lone surrogates, hide passwords."""

import re
from difflib import get_close_matches

MAX_LINE_LENGTH = 300  # code points of a description or an error


def cut(text: str, max_length: int, mark: str = "") -> str:
    """Cut *text* to at most *max_length* code points. A cut text ends with *mark*, and the length includes it.

    The cut is between two graphemes (UAX #29), or between two code points if the first grapheme alone is too long.
    """
    if len(text) <= max_length:
        return text
    # Not imported at the top: wcwidth imports `random`, and the folder in which the hub starts may have a `random.py`.
    from wcwidth import grapheme_boundary_before

    length = max(0, max_length - len(mark))
    return text[: grapheme_boundary_before(text[: length + 1], length + 1) or length] + mark


def replace_surrogates(text: str) -> str:
    """Replace each lone surrogate, which UTF-8 cannot encode, by a question mark."""
    return text.encode(errors="replace").decode()


def escape_unprintable(text: str) -> str:
    """Escape unprintable characters, so that *text* is one line and controls no terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def hide_passwords(text: str) -> str:
    """Remove user names and passwords from the URLs in *text*."""
    return re.sub(r"(?<=://)\S*@", "", text)


def to_one_line(text: str, max_length: int = MAX_LINE_LENGTH, mark: str = "") -> str:
    """Return *text* as one line without lone surrogates, cut to *max_length* code points; see cut() for *mark*."""
    return cut(" ".join(replace_surrogates(text).split()), max_length, mark)


def suggest_name(name: str, names: list[str]) -> str:
    """Return the end of an error text for an unknown name: a similar known name, or all known names."""
    matches = get_close_matches(name, names, n=1)
    return f": did you mean {matches[0]}?" if matches else f": use one of {', '.join(names)}"
