"""Markdown is drawn on the terminal, and no part of the text is left out."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hub.cli.markdown import draw_markdown

WIDTH = 60
LONG = "a-long-option " * 9
TEXTS = [
    # HTML, and text in commands and types that looks like HTML
    ("git clone <url> and List<String> x", "git clone <url> and List<String> x"),
    ("a <!-- b --> <b>c</b><br>d", "a <!-- b --> <b>c</b><br>d"),
    ("<div>\nx\n</div>\n\n<!-- y -->", "<div>\nx\n</div>\n\n<!-- y -->"),
    # text with the special characters of Markdown
    ("a &lt; b &amp; \\*c\\* `\\*d &lt;`", "a < b & *c* \\*d &lt;"),
    # formulas
    (r"so \[ a_1 \\ b_2 \{c\} \] *is*", r"so \[ a_1 \\ b_2 \{c\} \] is"),
    ("\\[\n\\frac{1}{2}\\,x\n\\] and \\(x\\,y\\)", "\\[\n\\frac{1}{2}\\,x\n\\] and \\(x\\,y\\)"),
    (r"so $$\int_0^1 x\,dx *2* $$ *is*, for $5 *or* $$", r"so $$\int_0^1 x\,dx *2* $$ is, for $5 or $$"),
    # addresses
    ("git clone <https://a.example/b> c", "git clone <https://a.example/b> c"),
    ("[a](http://b.example/c)", "a (http://b.example/c)"),
    ("![a](http://b.example/c.png)", "!a (http://b.example/c.png)"),
    ("[a][1]\n\n[1]: http://b.example", "[a][1]\n\n[1]: http://b.example"),
    # lines
    ("git clone a\ncd a", "git clone a\ncd a"),
    (f"```sh\n{LONG}\n```", LONG.rstrip()),
    ("```make\nall:\n\tcc  x  \n\n\tld\n```", "all:\n\tcc  x  \n\n\tld"),
    ("~~~ git clone a\nb\n~~~", "~~~ git clone a\nb"),
    # tables that are too wide, or have more cells than columns
    ("|a|b|\n|-|-|\n|1|2 <c>|", "a b\n────────\n1 2 <c>"),
    ("|a|b|\n|-|-|\n|1|2|3|", "|a|b|\n|-|-|\n|1|2|3|"),
    (f"|a|b|\n|-|-|\n|{'c' * 40}|{'d' * 40}|", f"|a|b|\n|-|-|\n|{'c' * 40}|{'d' * 40}|"),
    # nested deeper than the parser reads
    (">" * 30 + " deep", ">" * 30 + " deep"),
]
# Words and Markdown signs, in any combination.
SIGNS = [
    "<",
    ">",
    "</",
    "|",
    "\n",
    "\n\n",
    "- ",
    "> ",
    "1. ",
    "# ",
    "*",
    "**",
    "`",
    "~~",
    "[",
    "](",
    ")",
    "![",
    "\\",
    "$$",
    "&",
    " ",
    "|-|",
    "\n```",
]
PIECES = st.lists(st.one_of(st.sampled_from(SIGNS), st.integers(100, 999).map(lambda n: f"w{n}w")), max_size=30)


def drawn(text: str) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, color_system=None)
    console.print(draw_markdown(text), crop=False)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def plain(text: str) -> str:
    """Return the lines without borders, and without padding."""
    lines = [re.sub(r" +", " ", line.strip(" ")) for line in text.strip().splitlines()]
    return "\n".join(line for line in lines if line)


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_no_text_is_left_out_or_changed(text: str, shown: str) -> None:
    """The Markdown rules of a browser would leave out, change or break each of these texts."""
    assert plain(drawn(text)) == plain(shown)


def test_code_is_shown_unchanged() -> None:
    """With its tabs, spaces and long lines."""
    assert drawn(f"```make\nall:\n\tcc  x  \n{LONG}.\n```") == f"all:\n\tcc  x  \n{LONG}.\n"


@pytest.mark.parametrize("text", [f"- a\n\n  ```\n  {'x' * 200}\n  ```", f"> {'x' * 200}", f"- {'x' * 200}"])
def test_a_long_line_in_a_list_is_wrapped(text: str) -> None:
    """The terminal cannot wrap it there, so the hub does."""
    assert drawn(text).count("x") == 200


@pytest.mark.parametrize("text", ["&#x202e;a", "&#x9b;2J", "&#27;[2J", "[a](http://b/&#x202e;)", "```\n&#x202e;\n```"])
def test_no_entity_becomes_a_control_character(text: str) -> None:
    """It would bypass the check of the text before it is parsed."""
    assert not re.search("[\\x1b\\x9b\\u202e]", drawn(text))


@settings(deadline=None)  # the first colours of code take long to load
@given(PIECES)
def test_no_word_is_left_out(pieces: list[str]) -> None:
    """Whatever Markdown is around a word."""
    shown = re.sub(r"[\s▌]", "", drawn("".join(pieces)))
    for piece in pieces:
        assert piece in SIGNS or piece in shown
