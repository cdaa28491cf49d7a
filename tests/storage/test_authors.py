"""The contract of a log, for all drivers: what one author wrote, from all sessions."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.logs import LOGS, OpenedLog, Opener, chunk, file, open_logs

from hub.access.records import Grant
from hub.ids import Key
from hub.limits import MiB
from hub.messages import Author, HistoryMessage, Request
from hub.storage.records import Append
from hub.storage.sqlite import authors

S, T = Key("s"), Key("acme/t")


@pytest.fixture(params=LOGS)
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    async with open_logs(request.param(tmp_path)) as opener:
        yield opener


@pytest.fixture
async def opened(opener: Opener) -> OpenedLog:
    """Ann asks twice in s and once in t; Bob asks once in s. Each question has an answer."""
    opened = await opener()
    for number, (key, name) in enumerate(((S, "ann"), (S, "bob"), (T, "ann"), (S, "ann"))):
        question = make_message(f"q{number}", f"see f_{number}", author=Author(name, name.title()))
        answer = make_message(f"a{number}", "x" * 100, userMessageId=f"q{number}")
        await opened.put(Append(key, [], messages=[(0, question), (0, answer)]))
    return opened


def make_message(message_id: str, content: str, **fields: Any) -> HistoryMessage:
    fields = {"author": None, "agentId": None, "runId": None} | fields
    return HistoryMessage(messageId=message_id, role="user", content=content, **fields)


async def read_ids(opened: OpenedLog, name: str, limit: int, max_bytes: int = MiB) -> list[list[str]]:
    """Return the ids of the messages on each page, each with the key of its session."""
    pages: list[list[str]] = []
    after: int | None = 0
    while after is not None:
        rows, after = await opened.log.sessions.read_messages_of_author(name, after, limit, max_bytes)
        pages.append([f"{row.key} {row.message.messageId}" for row in rows])
    return pages


async def test_the_messages_of_an_author_have_their_requests(opened: OpenedLog) -> None:
    """They count for the size of a page."""
    message = make_message("q9", "x", author=Author("cid", ""))
    request = Request(state="x" * 500)
    appends = [(0, message), (0, attrs.evolve(message, messageId="q10"))]
    await opened.put(Append(Key("s"), [chunk("x")], appends, requests={"q9": request}))
    rows, after = await opened.log.sessions.read_messages_of_author("cid", 0, 9, MiB)
    assert [(row.message.messageId, row.request) for row in rows] == [("q9", request), ("q10", None)]
    assert after is None
    assert await read_ids(opened, "cid", 9, 400) == [["s q9"], ["s q10"]]


async def test_the_messages_of_an_author_have_their_answers(opened: OpenedLog) -> None:
    """Those of other authors are left out."""
    wanted = ["s q0", "s a0", "acme/t q2", "acme/t a2", "s q3", "s a3"]
    assert await read_ids(opened, "ann", 99) == [wanted]
    assert await read_ids(opened, "bob", 99) == [["s q1", "s a1"]]
    assert await read_ids(opened, "nobody", 99) == [[]]


async def test_a_page_ends_at_its_limits(opened: OpenedLog) -> None:
    """By the number of its messages, or by their bytes; with at least one message."""
    wanted = ["s q0", "s a0", "acme/t q2", "acme/t a2", "s q3", "s a3"]
    for limit, max_bytes in ((1, MiB), (99, 1)):
        assert await read_ids(opened, "ann", limit, max_bytes) == [*([id] for id in wanted), []]
    assert await read_ids(opened, "ann", 4) == [wanted[:4], wanted[4:]]


async def test_a_page_searches_a_limited_part_of_the_log(opened: OpenedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it may be empty, and is not the last one."""
    for name in ("AUTHORED_MESSAGES", "LATER_MESSAGE"):
        statement = getattr(authors, name).replace(str(authors.SCANNED_MESSAGES), "2")
        monkeypatch.setattr(authors, name, statement)
    monkeypatch.setattr(authors, "SCANNED_MESSAGES", 2)
    assert await read_ids(opened, "ann", 99) == [["s q0", "s a0"], [], ["acme/t q2", "acme/t a2"], ["s q3", "s a3"]]


async def test_the_files_of_an_author(opened: OpenedLog) -> None:
    """Those of its own sessions, and those that its messages name; a viewer does not own a session."""
    store = opened.log.files
    for file_id, session in (("f_0", "s"), ("f_1", "s"), ("f_2", "s"), ("f_3", "s"), ("f_8", "acme/t"), ("f_9", "s")):
        await store.add(file(file_id, session=session))

    async def list_ids(name: str) -> list[str]:
        return sorted(record.fileId for record in await store.list_files_of_author(name))

    assert await list_ids("ann") == ["f_0", "f_3"]  # f_2 is named in t only
    await opened.log.access.save(Grant(T, "ann", "owner"), Grant(S, "ann", "viewer"))
    assert await list_ids("ann") == ["f_0", "f_3", "f_8"]
    await opened.log.access.save(Grant(S, "ann", "owner"))
    assert await list_ids("ann") == ["f_0", "f_1", "f_2", "f_3", "f_8", "f_9"]
