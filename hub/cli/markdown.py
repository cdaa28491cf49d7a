"""Draw Markdown on a terminal without leaving out any text."""

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

from hub.cli.text import to_printable

# HTML, images and references are shown as text: rich would hide the address of an image, and the definition of a
# reference may come later in the answer.
PARSER = (
    MarkdownIt("commonmark")
    .enable(["strikethrough", "table"])
    .disable(["autolink", "html_block", "html_inline", "image", "reference"])
)
MEASURING_COLUMNS = 1_000_000  # more columns than any table needs
MAX_LEVEL = 18  # the deepest nesting that is drawn: the parser omits text nested deeper than 20
FORMULA = re.compile(r"\\\[.{1,1000}?\\\]|\\\(.{1,1000}?\\\)|\$\$.{1,1000}?\$\$", re.DOTALL)


def _parse_formula(state: StateInline, silent: bool) -> bool:
    """Parse a formula as plain text, with its backslashes, `*` and `_`. Return False if no formula starts here."""
    match = FORMULA.match(state.src, state.pos, state.posMax)
    if match is None:
        return False
    if not silent:
        state.push("text", "", 0).content = match[0]
    state.pos = match.end()
    return True


PARSER.inline.ruler.before("escape", "formula", _parse_formula)


def draw_markdown(text: str) -> RenderableType:
    """Return a drawing of Markdown. A link shows its address. Text with nesting deeper than MAX_LEVEL stays plain."""
    drawing = MarkdownDrawing(text)
    return Text(text) if any(token.level > MAX_LEVEL for token in drawing.parsed) else drawing


class CodeDrawing(CodeBlock):
    """Code that can be copied: outside lists and quotations, rich does not wrap or pad lines, and tabs stay tabs."""

    head: str = ""

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> "CodeDrawing":
        code = cls(token.info.strip() or "text", markdown.code_theme)
        if Syntax("", code.lexer_name).lexer is None:  # the info string is no known language: show it as text
            code.head = f"{token.markup}{to_printable(token.info)}\n"
        return code

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        syntax = Syntax("", self.lexer_name, theme=self.theme, background_color="default", tab_size=0)
        code = syntax.highlight(self.head + str(self.text))
        code.rstrip()
        code.no_wrap, code.tab_size = False, 8
        yield from _render_without_wrapping(code, console, options)


class TableDrawing(TableElement):
    """A table. Its source is shown instead if the table is too wide, or if a row has more `|` than the head."""

    source: list[str]

    @classmethod
    def create(cls, markdown: Markdown, token: Token) -> MarkdownElement:
        drawing = cls()
        assert token.map is not None
        drawing.source = markdown.markup.split("\n")[slice(*token.map)]
        return drawing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cell_counts = [line.strip(" |").count("|") for line in self.source]
        if max(cell_counts) == cell_counts[0]:
            for table in super().__rich_console__(console, options):
                assert isinstance(table, Table)
                if (
                    Measurement.get(console, options.update_width(MEASURING_COLUMNS), table).minimum
                    <= options.max_width
                ):
                    yield table
                    return
        yield from _render_without_wrapping(Text(to_printable("\n".join(self.source))), console, options)


def _render_without_wrapping(text: Text, console: Console, options: ConsoleOptions) -> RenderResult:
    """Yield text that the terminal wraps, not rich. Only inside a list or a quotation, rich wraps the text."""
    if options.max_width < console.width:
        yield text
    else:
        yield from text.render(console, end="\n")


class MarkdownDrawing(Markdown):
    """A text that rich draws with the parser and the classes of this module."""

    elements = Markdown.elements | {"fence": CodeDrawing, "code_block": CodeDrawing, "table_open": TableDrawing}

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.markup, self.parsed = text, PARSER.parse(text)
        for token in self._flatten_tokens(self.parsed):
            # The parser turns entities such as `&#x202e;` into control characters.
            token.content = to_printable(token.content)
            if token.type == "softbreak":
                token.type = "hardbreak"
