"""Draw Markdown on a terminal, and leave out no part of the text."""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Markdown, MarkdownElement, TableElement
from rich.measure import Measurement
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from hub.cli.text import safe

# HTML is shown as text. So are images and references: rich would hide the address of an image, and the definition of a
# reference may come in a later piece of the answer.
PARSER = (
    MarkdownIt("commonmark")
    .enable(["strikethrough", "table"])
    .disable(["autolink", "html_block", "html_inline", "image", "reference"])
)
WIDEST = 1_000_000  # columns: enough to measure the width that any table needs
DEEPEST = 18  # levels: the parser leaves out text that is nested deeper than 20
FORMULA = re.compile(r"\\\[.{1,1000}?\\\]|\\\(.{1,1000}?\\\)|\$\$.{1,1000}?\$\$", re.DOTALL)


def _formula(state: StateInline, silent: bool) -> bool:
    """Take a formula as text: its backslashes are no escapes, and its signs no Markdown."""
    found = FORMULA.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        state.push("text", "", 0).content = found[0]
    state.pos = found.end()
    return True


PARSER.inline.ruler.before("escape", "formula", _formula)


def markdown(text: str) -> RenderableType:
    """Return Markdown for the terminal: each link shows its address; text that is nested too deep is plain text."""
    whole = Drawn(text)
    return Text(text) if any(token.level > DEEPEST for token in whole.parsed) else whole


class Code(CodeBlock):
    """Code whose lines can be copied: no line is wrapped or padded, and tabs stay."""

    head: str = ""

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> "Code":
        code = cls(token.info.strip() or "text", markdown.code_theme)
        if Syntax("", code.lexer_name).lexer is None:  # not a language: text beside the fence, which must be shown
            code.head = f"{token.markup}{safe(token.info)}\n"
        return code

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        syntax = Syntax("", self.lexer_name, theme=self.theme, background_color="default", tab_size=0)
        code = syntax.highlight(self.head + str(self.text))
        code.rstrip()
        code.no_wrap, code.tab_size = False, 8
        yield from _as_it_is(code, console, options)


class Grid(TableElement):
    """A table. If it is too wide, or a row has more cells than columns, its source is shown instead."""

    source: list[str]

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> MarkdownElement:
        grid = cls()
        assert token.map is not None
        grid.source = markdown.markup.split("\n")[slice(*token.map)]
        return grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = [line.strip(" |").count("|") for line in self.source]
        if max(cells) == cells[0]:
            for table in super().__rich_console__(console, options):
                assert isinstance(table, Table)
                if Measurement.get(console, options.update_width(WIDEST), table).minimum <= options.max_width:
                    yield table
                    return
        yield from _as_it_is(Text(safe("\n".join(self.source))), console, options)


def _as_it_is(text: Text, console: Console, options: ConsoleOptions) -> RenderResult:
    """Yield text that only the terminal wraps. Inside a list or a quotation, rich wraps it."""
    if options.max_width < console.width:
        yield text
    else:
        yield from text.render(console, end="\n")


class Drawn(Markdown):
    elements = Markdown.elements | {"fence": Code, "code_block": Code, "table_open": Grid}

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.markup, self.parsed = text, PARSER.parse(text)
        for token in self._flatten_tokens(self.parsed):
            token.content = safe(token.content)  # the parser has made control characters of entities such as `&#x202e;`
            if token.type == "softbreak":
                token.type = "hardbreak"
