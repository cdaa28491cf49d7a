"""Text for people: cut where no character breaks, and with nothing in it that UTF-8 cannot hold."""

import re

LINE = 300  # code points of a description or an error


def cut(text: str, most: int, mark: str = "") -> str:
    """Return the start of *text*, with *mark* after it if anything is left out: at most *most* code points in all.

    The cut is between two graphemes, as UAX #29 defines them; it is between two code points where the first grapheme
    alone is longer than the room.
    """
    if len(text) <= most:
        return text
    # Not at the top: it imports `random`, and the folder in which the hub starts may have a file of that name.
    from wcwidth import grapheme_boundary_before

    room = max(0, most - len(mark))
    return text[: grapheme_boundary_before(text[: room + 1], room + 1) or room] + mark


def clean(text: str) -> str:
    """Return *text* as UTF-8 can hold it: each lone surrogate as a question mark."""
    return text.encode(errors="replace").decode()


def without_password(text: str) -> str:
    """Return *text* without the names and passwords of the addresses in it."""
    return re.sub(r"(?<=://)\S*@", "", text)


def one_line(text: str, most: int = LINE, mark: str = "") -> str:
    """Return *text* in one line that JSON can hold, cut to at most *most* code points."""
    return cut(" ".join(clean(text).split()), most, mark)
