"""Draw the picture of a hub for a terminal."""

from collections.abc import Mapping
from itertools import chain

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from hub.cli.text import to_printable
from hub.cli.top.figures import AnswerFigures, Picture
from hub.cli.top.units import NO_VALUE, format_bytes, format_duration, format_rate, format_share, format_span

OTHER_LINES = 19  # of the picture, beside the rows of agents
PADDING = (0, 3, 0, 0)  # of a cell, on its right side


def draw_picture(picture: Picture, source: str, *, note: str = "", height: int | None = None) -> RenderableType:
    """Return the picture. *note* is a problem. With *height*, agents that do not fit are only counted."""
    refusals = sorted(picture.refusals.items(), key=lambda item: -item[1])
    return Group(
        _draw_title(picture, source),
        Text(to_printable(note), style="bold red"),
        _draw_gauges(picture),
        Text(),
        _draw_durations(picture),
        Text(),
        Text.assemble(("refusals", "bold"), "  ", ", ".join(f"{code} {count}" for code, count in refusals) or "none"),
        Text(),
        _draw_agents(picture.agents, None if height is None else max(1, height - OTHER_LINES)),
    )


def _draw_title(picture: Picture, source: str) -> Text:
    uptime = "" if picture.uptime_seconds is None else f"up {format_span(picture.uptime_seconds)}; "
    is_whole = picture.span_seconds in (None, picture.uptime_seconds)
    span = "since its start" if is_whole else f"of the last {format_span(picture.span_seconds or 0.0)}"
    rest = f"  {to_printable(source)}  {uptime}rates and times {span}"
    return Text.assemble((f"hubbub {to_printable(picture.version)}", "bold"), (rest, "dim"))


def _draw_gauges(picture: Picture) -> Table:
    clients, answers, process = picture.clients, picture.answers, picture.process
    return _draw_columns(
        {
            "connections": str(clients.connections),
            "subscriptions": str(clients.subscriptions),
            "lagging": str(clients.lagging_subscriptions),
            "sessions": str(clients.sessions),
        },
        {
            "running": str(answers.running),
            "queued": str(answers.queued),
            "ended": str(answers.end_count),
            "tokens/s": format_rate(answers.tokens_per_second),
        },
        {
            "memory": format_bytes(process.memory_bytes),
            "CPU": format_share(process.cpu_share),
            "open files": NO_VALUE if process.open_files is None else str(process.open_files),
            "sent/s": format_bytes(clients.written_bytes_per_second),
        },
    )


def _draw_columns(*columns: Mapping[str, str]) -> Table:
    """Return a table of names and values, with a pair of table columns for each of *columns*."""
    pairs = ((Column(style="bold"), Column(justify="right", min_width=9)) for _ in columns)
    table = Table.grid(*chain.from_iterable(pairs), padding=PADDING)
    for row in zip(*(column.items() for column in columns), strict=True):
        table.add_row(*chain.from_iterable(row))
    return table


def _draw_durations(picture: Picture) -> Table:
    rows = {
        "first token": picture.answers.first_token,
        "wait in a queue": picture.answers.queue_wait,
        "age of a token at write": picture.clients.token_age,
        "commit of the log": picture.process.commit,
        "lag of the event loop": picture.process.loop_lag,
    }
    table = _make_table("", "median", "95 %", "count")
    for title, durations in rows.items():
        cells = (format_duration(durations.p50), format_duration(durations.p95), f"{durations.count:,}")
        table.add_row(Text(title, style="bold"), *cells)
    table.add_row(
        Text("longest lag since the start", style="bold"), "", format_duration(picture.process.worst_loop_lag)
    )
    return table


def _draw_agents(agents: Mapping[str, AnswerFigures], max_rows: int | None) -> Table:
    """Return the table of agents: those with running answers first, then by their queues and their tokens."""
    table = _make_table("agent", "running", "queued", "ended", "tokens/s", "first token\n95 %", "queue\n95 %")
    rows = sorted(agents.items(), key=lambda item: _rank(item[1]))
    shown_rows = rows if max_rows is None or len(rows) <= max_rows else rows[: max_rows - 1]
    for name, figures in shown_rows:
        counts = (figures.running, figures.queued, figures.end_count)
        waits = (format_duration(figures.first_token.p95), format_duration(figures.queue_wait.p95))
        table.add_row(Text(to_printable(name)), *map(str, counts), format_rate(figures.tokens_per_second), *waits)
    if len(shown_rows) < len(rows):
        table.add_row(Text(f"and {len(rows) - len(shown_rows)} more", style="dim"))
    return table


def _rank(figures: AnswerFigures) -> tuple[float, ...]:
    return (-figures.running, -figures.queued, -(figures.tokens_per_second or 0.0), -figures.end_count)


def _make_table(*headings: str) -> Table:
    """Return a table without lines. The first column has names, the others numbers."""
    names, *numbers = headings
    columns = (Column(heading, justify="right", no_wrap=True) for heading in numbers)
    return Table(Column(names, overflow="fold"), *columns, box=None, padding=PADDING, pad_edge=False)
