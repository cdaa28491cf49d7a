"""Control the Python client by lines of JSON: commands on standard input, results on standard output.

tests/client/test_clients.py uses it.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from hub.client import Answer, Client, Failure, Session, connect
from hub.messages import Chunk, MessageRemoved, Reset, WholeMessage
from hub.protocols.extended import event_fields


def say(kind: str, **fields: Any) -> None:
    print(json.dumps({"kind": kind} | {key: value for key, value in fields.items() if value is not None}), flush=True)


def token_function(tokens: list[str | None]) -> Callable[[], Awaitable[str]]:
    """Return an async function that returns *tokens* in turn, and fails for None."""
    rest = iter(tokens)

    async def get_token() -> str:
        token = next(rest)
        if token is None:
            raise OSError("no token now")
        return token

    return get_token


class Driver:
    """One client, and the tasks that read its events."""

    def __init__(self) -> None:
        self.hub: Client | None = None
        self.sessions: dict[str, Session] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def do(self, do: str, **fields: Any) -> None:
        try:
            await getattr(self, "do_" + do)(**fields)
        except Failure as failure:
            say("error", id=fields.get("id"), code=failure.code, message=failure.message)

    async def do_connect(self, url: str, token: str | None = None, tokens: list[str | None] | None = None) -> None:
        self.hub = connect(url, patience=None, token=token if tokens is None else token_function(tokens))
        self.spawn(self.watch(self.hub))
        await self.hub.__aenter__()

    async def watch(self, hub: Client) -> None:
        async for state in hub.states():
            say("state", state=state, code=hub.code)

    async def do_session(
        self, sessionId: str, agent: str, afterSeq: int | None = None, epoch: str | None = None
    ) -> None:
        assert self.hub is not None
        events = self.hub.subscribe(session=sessionId, after_seq=afterSeq, epoch=epoch)
        self.spawn(self.read(sessionId, events))
        self.sessions[sessionId] = await self.hub.session(sessionId, agent=agent)

    async def read(self, session_id: str, events: Any) -> None:
        with contextlib.suppress(Failure):
            async for event in events:
                if isinstance(event, Reset):
                    say("reset", sessionId=session_id, reason=event.reason)
                else:
                    say("event", sessionId=session_id, event=event_fields(event))

    async def do_chat(self, id: Any, sessionId: str, message: str, clientMsgId: str | None = None) -> None:
        answer = self.sessions[sessionId].chat(message, client_msg_id=clientMsgId)
        self.spawn(self.print_chat(id, answer))

    async def print_chat(self, id: Any, answer: Answer) -> None:
        texts: dict[str, str] = {}
        try:
            async for event in answer:
                say("chat-event", id=id, event=event_fields(event))
                if isinstance(event.body, (Chunk, WholeMessage)):
                    texts[event.body.messageId] = texts.get(event.body.messageId, "") + event.body.content
                elif isinstance(event.body, MessageRemoved):
                    texts = {key: text for key, text in texts.items() if key not in event.body.messageIds}
            say("chat-end", id=id, text="".join(texts.values()))
        except Failure as failure:
            say("error", id=id, code=failure.code, message=failure.message)

    async def do_ask(self, id: Any, sessionId: str, message: str) -> None:
        self.spawn(self.print_answer(id, sessionId, message))

    async def print_answer(self, id: Any, session_id: str, message: str) -> None:
        try:
            say("answer", id=id, text=await self.sessions[session_id].ask(message))
        except Failure as failure:
            say("error", id=id, code=failure.code, message=failure.message)

    async def do_cancel(self, sessionId: str) -> None:
        session = self.sessions[sessionId]
        self.spawn(self.print_cancel(session))

    async def print_cancel(self, session: Session) -> None:
        try:
            await session.cancel()
        except Failure as failure:
            say("error", code=failure.code, message=failure.message)


async def main() -> None:
    driver = Driver()
    lines = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        command = json.loads(line)
        if command["do"] == "close":
            break
        await driver.do(**command)
    if driver.hub is not None:
        await driver.hub.close()
    if driver.tasks:
        await asyncio.wait(driver.tasks)
    say("closed")


if __name__ == "__main__":
    asyncio.run(main())
