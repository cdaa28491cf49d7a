"""Print lists as tables that fit the terminal. Ids are never cut."""

import io
import os
import sys
from collections.abc import Iterable, Sequence

import attrs
import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hub.cli.text import to_printable

GAP = 2  # cells between two columns
# The width to which a column is folded before another one is left out, and its least width.
SOFT_WIDTH, MIN_WIDTH = 16, 8
PIPE_WIDTH = 100_000


@attrs.frozen
class TableColumn:
    """A column of a list. If *is_whole* is True, its cells are never folded into lines, as ids must not be.

    If the table is too wide, columns with a *rank* are left out, the highest rank first.
    """

    title: str
    is_whole: bool = False
    rank: int = 0


def print_table(columns: Sequence[TableColumn], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Print the rows, or the line *empty*. In a pipe, the table has all columns, and a line for each row.

    A line on standard error names columns that were left out.
    """
    cells = [[to_printable(cell) or "-" for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    width = Console().width if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    heading, *lines = format_table(columns, cells, width)
    click.echo(click.style(heading, bold=True))
    for line in lines:
        click.echo(line)
    places = choose_columns(columns, cells, width)
    titles = [column.title for place, column in enumerate(columns) if place not in places]
    if titles:
        click.echo(f"left out: {', '.join(titles)}; a wider terminal shows all columns, and so does a pipe", err=True)


def choose_columns(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the positions of the columns that fit into *width* cells, if the others are folded a little."""
    widths = _measure(columns, rows, SOFT_WIDTH)
    places = [*range(len(columns))]
    while sum(widths[place] + GAP for place in places) - GAP > width and any(columns[place].rank for place in places):
        places.remove(max(places, key=lambda place: columns[place].rank))
    return places


def format_table(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return the lines of a table of *width* cells. Lines are longer only if whole cells do not fit otherwise."""
    places = choose_columns(columns, rows, width)
    min_widths = _measure(columns, rows, MIN_WIDTH)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for place in places:
        column = columns[place]
        table.add_column(column.title, no_wrap=column.is_whole, overflow="fold", min_width=min_widths[place])
    for row in rows:
        table.add_row(*(Text(row[place]) for place in places))
    min_width = sum(min_widths[place] + GAP for place in places) - GAP
    output = io.StringIO()
    Console(file=output, width=max(width, min_width)).print(table)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def _measure(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]], fold_width: int) -> list[int]:
    """Return the width of each column, if columns that may be folded have at most *fold_width* cells."""
    widths = []
    for place, column in enumerate(columns):
        cells = max(cell_len(text) for text in (column.title, *(row[place] for row in rows)))
        widths.append(cells if column.is_whole else min(cells, max(fold_width, cell_len(column.title))))
    return widths
