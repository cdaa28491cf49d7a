"""Surrogate pairs that are split between two chunks."""

from hypothesis import given
from hypothesis import strategies as st

from hub.adapters.chat_surrogates import SurrogateJoiner


def units(text: str) -> list[str]:
    """Return the UTF-16 code units of a text, each as a character."""
    data = text.encode("utf-16-le")
    return [chr(int.from_bytes(data[at : at + 2], "little")) for at in range(0, len(data), 2)]


@given(st.text(st.sampled_from("aé好😀🎉")), st.lists(st.integers(0, 20)))
def test_any_cuts(text: str, cuts: list[int]) -> None:
    """Cuts between any two code units give the same text, in parts that UTF-8 can hold."""
    rest, joiner, heard = units(text), SurrogateJoiner(), ""
    for cut in [*cuts, len(rest)]:
        piece = joiner.join("text", "".join(rest[:cut]))
        heard += piece.encode().decode()
        rest = rest[cut:]
    assert heard == text and joiner.flush() == {}


@given(st.lists(st.sampled_from(["\ud83d", "\ude00", "a", "😀", ""])))
def test_any_halves(chunks: list[str]) -> None:
    """A lone surrogate becomes one U+FFFD, and nothing else is lost."""
    joiner = SurrogateJoiner()
    heard = "".join([joiner.join("text", chunk) for chunk in chunks]) + joiner.flush().get("text", "")
    whole = "".join(chunks).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert heard.encode().decode() == whole


def test_kinds_do_not_mix() -> None:
    """Reasoning between the two surrogates of a text changes neither."""
    joiner = SurrogateJoiner()
    assert [joiner.join("text", "\ud83d"), joiner.join("thought", "\ude00"), joiner.join("text", "\ude00")] == [
        "",
        "\ufffd",
        "😀",
    ]
