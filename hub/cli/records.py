"""Write stored sessions and messages: `hubbub sessions` and `hubbub export`."""

import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from hub.cli.failures import CommandFailed
from hub.cli.hubs import get_json
from hub.cli.tables import TableColumn, print_table
from hub.cli.text import to_printable, to_printable_json
from hub.text import to_one_line

TITLE_COLUMNS = 60
SESSION_COLUMNS = (
    TableColumn("session", is_whole=True),
    TableColumn("title"),
    TableColumn("messages", is_whole=True, rank=2),
    TableColumn("last message", is_whole=True, rank=1),
)


async def write_sessions(url: str, limit: int) -> int:
    """Print a table of the newest sessions, at most *limit*."""
    sessions: list[dict[str, Any]] = []
    has_more = False
    async for session in _read_rows(url, "/sessions"):
        if has_more := len(sessions) == limit:
            break
        sessions.append(session)
    rows = []
    for session in sessions:
        last = datetime.fromtimestamp(session["ts"] / 1000).isoformat(" ", "seconds") if session["ts"] else ""
        rows.append((session["sessionId"], await _read_title(url, session), str(session["messages"]), last))
    print_table(SESSION_COLUMNS, rows, "no sessions yet")
    if has_more:
        print(f"there are more sessions: see them with --limit {limit * 5}", file=sys.stderr)
    return 0


async def _read_rows(url: str, path: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the rows of a list, page by page; the hub chooses the size of a page."""
    cursor: dict[str, Any] | None = {}
    while cursor is not None:
        page = await get_json(url, path, **cursor)
        for row in page["data"]:
            yield row
        cursor = {"after": page["next"]} if page["more"] else None


async def _read_title(url: str, session: dict[str, Any]) -> str:
    """Return the session's title, or the start of its first message."""
    title, messages = str(session.get("title") or ""), []
    if not title and session["messages"]:
        with contextlib.suppress(CommandFailed):  # the session was deleted after it was listed
            messages = (await get_json(url, _session_path(session["sessionId"]) + "/messages", limit=1))["data"]
    return to_one_line(title or "".join(message["content"] for message in messages), TITLE_COLUMNS, "…")


def _session_path(session: str) -> str:
    return f"/sessions/{quote(session, safe='')}"


async def write_session(url: str, session: str, form: Literal["md", "json"]) -> int:
    """Write all finished messages.

    In JSON, control characters become escapes. In Markdown, to_printable() replaces them.
    """
    messages = [message async for message in _read_rows(url, _session_path(session) + "/messages")]
    if form == "json":
        sys.stdout.write(to_printable_json(messages) + "\n")
    else:
        sys.stdout.write("\n".join(_to_markdown(message) for message in messages))
    sys.stdout.flush()
    return 0


def _to_markdown(message: dict[str, Any]) -> str:
    paragraphs = [
        f"### {to_printable(author_name(message))}",
        to_printable(message["content"]).rstrip(),
        end_note(message),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def end_note(message: dict[str, Any]) -> str:
    """Return a line with the error or the stop reason of a message, or "" if its answer is complete."""
    reason = message.get("error", {}).get("message") or message.get("stopReason")
    return f"— {to_printable(str(reason))} —" if reason else ""


def author_name(message: dict[str, Any]) -> str:
    """Return the name of the message's author: the agent, the person, or the role."""
    return str(message.get("agentId") or message.get("author", {}).get("name") or message["role"])
