"""Prepare text for people: cut it between characters, replace what UTF-8 cannot hold, hide passwords."""

import re

LINE = 300  # code points of a description or an error


def cut(text: str, most: int, mark: str = "") -> str:
    """Return the start of *text*, of at most *most* code points; if text is left out, *mark* ends it, and counts.

    The cut is between two graphemes (UAX #29). If the first grapheme alone is too long, it is cut between two code
    points.
    """
    if len(text) <= most:
        return text
    # Not at the top: wcwidth imports `random`, and the folder in which the hub starts may have a `random.py`.
    from wcwidth import grapheme_boundary_before

    room = max(0, most - len(mark))
    return text[: grapheme_boundary_before(text[: room + 1], room + 1) or room] + mark


def replace_surrogates(text: str) -> str:
    """Return *text* with a question mark in place of each lone surrogate, which UTF-8 cannot hold."""
    return text.encode(errors="replace").decode()


def escape_unprintable(text: str) -> str:
    """Return *text* in one line, with an escape for each character that cannot be printed: no terminal obeys it."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def hide_passwords(text: str) -> str:
    """Return *text* without the user names and passwords of the URLs in it."""
    return re.sub(r"(?<=://)\S*@", "", text)


def to_one_line(text: str, most: int = LINE, mark: str = "") -> str:
    """Return *text* as one line of valid UTF-8, cut to at most *most* code points."""
    return cut(" ".join(replace_surrogates(text).split()), most, mark)
