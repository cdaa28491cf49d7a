"""What is kept, written out: `hubbub sessions` and `hubbub export`."""

import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from hub.cli.failures import CommandFailed
from hub.cli.hubs import get
from hub.cli.text import CONTROL, safe
from hub.text import to_one_line

TITLE = 60  # characters


async def list_sessions(url: str, limit: int) -> int:
    sessions: list[dict[str, Any]] = []
    more = False
    async for session in _each(url, "/sessions"):
        if more := len(sessions) == limit:
            break
        sessions.append(session)
    table = Table(Column("session", no_wrap=True), "title", "messages", "last message")  # the id stays whole
    for one in sessions:
        last = datetime.fromtimestamp(one["ts"] / 1000).isoformat(" ", "seconds") if one["ts"] else "-"
        title = Text(safe(await _title(url, one)), overflow="ellipsis", no_wrap=True)
        table.add_row(Text(safe(one["sessionId"]), no_wrap=True), title, str(one["messages"]), last)
    Console().print(table if sessions else "no sessions yet")
    if more:
        print(f"there are more sessions: see them with --limit {limit * 5}", file=sys.stderr)
    return 0


async def _each(url: str, address: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the rows of a list, which is read slice by slice; the hub says how long a slice is."""
    place: dict[str, Any] | None = {}
    while place is not None:
        some = await get(url, address, **place)
        for row in some["data"]:
            yield row
        place = {"after": some["next"]} if some["more"] else None


async def _title(url: str, listed: dict[str, Any]) -> str:
    """Return what people know a session by: its title, else the first words that were said there."""
    title, said = str(listed.get("title") or ""), []
    if not title and listed["messages"]:
        with contextlib.suppress(CommandFailed):  # deleted since it was listed
            said = (await get(url, _path(listed["sessionId"]) + "/messages", limit=1))["data"]
    return to_one_line(title or "".join(one["content"] for one in said), TITLE, "…")


def _path(session: str) -> str:
    return f"/sessions/{quote(session, safe='')}"


async def write_session(url: str, session: str, form: Literal["md", "json"]) -> int:
    """Write all finished messages; what is a control sequence in them is escaped, as JSON or as a sign."""
    messages = [message async for message in _each(url, _path(session) + "/messages")]
    if form == "json":
        text = json.dumps(messages, ensure_ascii=False, indent=2)
        sys.stdout.write(re.sub(CONTROL, lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
    else:
        sys.stdout.write("\n".join(_markdown(message) for message in messages))
    sys.stdout.flush()
    return 0


def _markdown(message: dict[str, Any]) -> str:
    paragraphs = [f"### {safe(who(message))}", safe(message["content"]).rstrip(), ending(message)]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def ending(message: dict[str, Any]) -> str:
    """Return a line that says how the answer of this message ended; empty if it ended by itself."""
    why = message.get("error", {}).get("message") or message.get("stopReason")
    return f"— {safe(str(why))} —" if why else ""


def who(message: dict[str, Any]) -> str:
    """Return whose message it is, by the name that people see."""
    return str(message.get("agentId") or message.get("author", {}).get("name") or message["role"])
