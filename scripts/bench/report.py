"""Formats results as lines, tables and plots."""

import json
import re
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

Results = dict[str, dict[str, dict[str, Any]]]

FAN_OUT = ("burst", "paced", "fast", "wide", "flood", "many")
REFERENCE = "bun (uWebSockets)"
STYLE = Style(
    background="white",
    plot_background="white",
    font_family="sans-serif",
    title_font_size=18,
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=13,
    colors=("#d6336c", "#4263eb", "#74c0fc", "#1098ad", "#845ef7", "#f59f00", "#e8590c", "#495057"),
)
UNITS = {
    "cpu_us": "µs of CPU a token",
    "age_p99_ms": "ms p99",
    "kb_per_connection": "kB a connection",
    "first_byte_ms": "ms to the first byte",
    "frames": "frames",
    "last_s": "s until the last client has all tokens",
    "inexact": "clients with missing or repeated tokens",
    "over_ms": "ms more than a bare fsync",
    "fsync_ms": "ms for the fsync",
    "missing": "tokens missing",
    "surplus": "tokens twice",
}
TENS = (0.001, 0.01, 0.1, 1, 10, 100, 1000, 10_000)  # labels of a logarithmic scale, beside three times each
ALWAYS = {"inexact"}  # shown even if it is 0


def line(result: dict[str, Any]) -> str:
    """Format the result of one step in one line."""
    idle = not result.get("delivered", 1)
    parts = []
    for key, unit in UNITS.items():
        value = result.get(key)
        if value is None or key == "kb_per_connection" and not idle and "cpu_us" in result:
            continue
        if value or key in ALWAYS:
            parts.append(f"{figure(value)} {unit}")
    return ", ".join(parts)


def figure(value: float) -> str:
    """Format a figure with at most three significant digits, the precision of the measurements."""
    if value == int(value) and value < 100:
        return str(int(value))
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{3 if value < 0.1 else 2 if value < 10 else 1}f}"


def cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    if not result["delivered"]:
        return figure(result["kb_per_connection"])
    text = figure(result["cpu_us"])
    if result["age_p99_ms"] is not None:
        text += f" ({figure(result['age_p99_ms'])})"
    return text + (" lossy" if result["missing"] or result["surplus"] else "")


def ratio(row: dict[str, dict[str, Any]]) -> str:
    hub, bun = row.get("hub"), row.get(REFERENCE)
    if hub is None or bun is None:
        return ""
    key = "cpu_us" if hub["delivered"] else "kb_per_connection"
    return figure(hub[key] / bun[key])


def tables(results: Results, machine: dict[str, str]) -> str:
    """Return the three tables as Markdown."""
    scenarios = [name for name in (*FAN_OUT, "idle") if name in results]
    servers = list(dict.fromkeys(name for table in scenarios for name in results[table]))
    lines = [
        f"Measured on {machine['date']}: {machine['processors']}, {machine['system']}, Python {machine['python']}.",
        "",
    ]
    if scenarios:
        has_ratio = {"hub", REFERENCE} <= {*servers}
        lines.append("| | " + " | ".join([*servers, *(["hub / bun"] if has_ratio else [])]) + " |")
        lines.append("|---" * (len(servers) + 1 + has_ratio) + "|")
        for name in scenarios:
            row = results[name]
            label = f"{name}, kB a connection" if name == "idle" else name
            cells = [label, *(cell(row.get(server)) for server in servers), *([ratio(row)] if has_ratio else [])]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    for table, title in (("extras", "what the log does"), ("growth", "as work grows")):
        if table in results:
            lines += [f"| {title} | |", "|---|---|"]
            lines += [f"| {name} | {line(result)} |" for name, result in results[table].items()]
            lines.append("")
    return "\n".join(lines)


def bars(title: str, unit: str, rows: dict[str, dict[str, float | None]], logarithmic: bool = True) -> pygal.Bar:
    """Draw one group of bars per row, one colour per server."""
    values = [value for row in rows.values() for value in row.values() if value] or [1]
    low, high = (min(values) / 1.5, max(values) * 1.5) if logarithmic else (0, max(values) * 1.1)
    chart = pygal.Bar(
        style=STYLE,
        js=[],
        title=title,
        y_title=unit,
        logarithmic=logarithmic,
        range=(low, high),
        zero=low,
        legend_at_bottom=True,
        legend_at_bottom_columns=4,
        truncate_label=-1,
        x_label_rotation=20 if len(rows) > len(FAN_OUT) else 0,
        width=1000,
        height=480,
        disable_xml_declaration=True,
        no_prefix=True,
    )
    chart.x_labels = list(rows)
    if logarithmic:
        chart.y_labels = [ten * step for ten in TENS for step in (1, 3) if low <= ten * step <= high]
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        chart.add(name, [row.get(name) for row in rows.values()])
    return chart


def plots(results: Results) -> dict[str, str]:
    """Return the plots by name, as SVG."""

    def rows(tables: tuple[str, ...], key: str) -> dict[str, dict[str, float | None]]:
        selection = {
            table: {name: result[key] for name, result in results[table].items()}
            for table in tables
            if table in results
        }
        return {table: row for table, row in selection.items() if any(row.values())}

    charts = {
        "cpu": bars("Server CPU per delivered token", "µs, logarithmic", rows(FAN_OUT, "cpu_us")),
        "age": bars("Age of a token on arrival, p99", "ms, logarithmic", rows(FAN_OUT, "age_p99_ms")),
        "memory": bars("Memory per idle connection", "kB", rows(("idle",), "kb_per_connection"), logarithmic=False),
        "growth": bars(
            "Server CPU per delivered token as work grows",
            "µs, logarithmic",
            {name: {"hub": result["cpu_us"]} for name, result in results.get("growth", {}).items()},
        ),
    }
    return {name: chart.render() for name, chart in charts.items() if chart.raw_series}


def write(results: Results, machine: dict[str, str], folder: Path, page: Path | None) -> None:
    """Write results.json, results.md and the plots to *folder*.

    The tables are also written between the two marks of *page*, and the plots into the folder `images` beside it.
    """
    text = tables(results, machine)
    (folder / "results.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    (folder / "results.md").write_text(text)
    svgs = plots(results)
    for name, svg in svgs.items():
        (folder / f"{name}.svg").write_text(svg)
    if page is None:
        return
    text_before = page.read_text()
    section = re.compile(r"(<!-- figures -->\n).*(<!-- end of figures -->)", re.DOTALL)
    page.write_text(section.sub(lambda match: f"{match[1]}\n{text}\n{match[2]}", text_before))
    images = page.parent / "images"
    images.mkdir(exist_ok=True)
    for name, svg in svgs.items():
        (images / f"bench-{name}.svg").write_text(svg)
