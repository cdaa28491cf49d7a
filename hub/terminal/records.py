"""What is kept, written out: `hubbub sessions` and `hubbub export`."""

import json
import re
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hub.terminal.hubs import get
from hub.terminal.text import CONTROL, safe


async def list_sessions(url: str, size: int) -> int:
    found = await get(url, "/sessions", page=1, size=size)
    table = Table("session", "messages", "last message")
    for one in found["data"]:
        last = datetime.fromtimestamp(one["ts"] / 1000).isoformat(" ", "seconds") if one["ts"] else "-"
        table.add_row(Text(safe(one["sessionId"])), str(one["messages"]), last)
    Console().print(table if found["data"] else "no sessions yet")
    return 0


async def write_session(url: str, session: str, form: Literal["md", "json"]) -> int:
    """Write all finished messages; what is a control sequence in them is escaped, as JSON or as a sign."""
    messages = [message async for message in _messages(url, session)]
    if form == "json":
        text = json.dumps(messages, ensure_ascii=False, indent=2)
        sys.stdout.write(re.sub(CONTROL, lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
    else:
        parts = [f"### {safe(who(message))}\n\n{safe(message['content']).rstrip()}\n" for message in messages]
        sys.stdout.write("\n".join(parts))
    sys.stdout.flush()
    return 0


async def _messages(url: str, session: str) -> AsyncIterator[dict[str, Any]]:
    page, left = 1, True
    while left:
        found = await get(url, f"/sessions/{quote(session, safe='')}/messages", page=page, size=100)
        for message in found["data"]:
            yield message
        left = page * 100 < found["total"]
        page += 1


def who(message: dict[str, Any]) -> str:
    """Return whose message it is, by the name that people see."""
    return str(message.get("agentId") or message.get("author", {}).get("name") or message["role"])
