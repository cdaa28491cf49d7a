"""Control the Python client by lines of JSON: commands on standard input, results on standard output.

tests/client/test_clients.py uses it.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

from hub.client import Answer, Client, Failure, Session, connect
from hub.messages import Chunk, Interrupt, MessageRemoved, ReplyStatus, Reset, StoredFile, WholeMessage
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


def write_file(name: str, type: str, text: str) -> Path:
    """Write a file to upload. Its media type follows from its name."""
    path = Path(tempfile.mkdtemp()) / name
    path.write_text(text, encoding="utf-8")
    return path


def to_fields(file: StoredFile) -> dict[str, Any]:
    return attrs.asdict(file, filter=lambda _, value: value is not None)


class Driver:
    """One client, and the tasks that read its events."""

    def __init__(self) -> None:
        self.hub: Client | None = None
        self.sessions: dict[str, Session] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.reply: asyncio.Future[dict[str, Any]] | None = None  # of the function that answers questions

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
        self,
        sessionId: str,
        agent: str,
        afterSeq: int | None = None,
        epoch: str | None = None,
        handle: str | None = None,
    ) -> None:
        assert self.hub is not None
        if handle is None:
            events = self.hub.subscribe(session=sessionId, after_seq=afterSeq, epoch=epoch)
            self.spawn(self.read(sessionId, events))
        session = await self.hub.session(sessionId, agent=agent)
        self.sessions[handle or sessionId] = session
        if handle is not None:
            self.spawn(self.read(sessionId, session.events(), handle))

    async def read(self, session_id: str, events: Any, handle: str | None = None) -> None:
        with contextlib.suppress(Failure):
            async for event in events:
                if isinstance(event, Reset):
                    say("reset", sessionId=session_id, reason=event.reason, handle=handle)
                else:
                    say("event", sessionId=session_id, event=event_fields(event), handle=handle)

    async def do_chat(self, id: Any, message: str, **fields: Any) -> None:
        session, options = self.find_session(fields)
        self.spawn(self.print_chat(id, session.chat(message, **options)))

    def find_session(self, fields: dict[str, Any]) -> tuple[Session, dict[str, Any]]:
        """Return the session object of a command, and the other fields as options of `chat`."""
        session_id = fields.pop("sessionId", "")
        session = self.sessions[fields.pop("handle", session_id)]
        names = {"clientMsgId": "client_msg_id", "ifBusy": "if_busy"}
        options = {names.get(name, name): value for name, value in fields.items()}
        if "files" in options:
            options["files"] = [write_file(**file) for file in options["files"]]
        return session, options

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

    async def do_ask(self, id: Any, message: str, **fields: Any) -> None:
        with_replies = fields.pop("replies", False)
        session, options = self.find_session(fields)
        if with_replies:
            options["on_question"] = self.ask_for_reply
        self.spawn(self.print_answer(id, session.ask(message, **options)))

    async def print_answer(self, id: Any, answer: Awaitable[str]) -> None:
        try:
            say("answer", id=id, text=await answer)
        except (Failure, KeyError) as failure:
            say("error", id=id, code=getattr(failure, "code", "internal"), message=str(failure))

    async def ask_for_reply(self, question: Interrupt) -> Any:
        say("question", message=question.message)
        self.reply = asyncio.get_running_loop().create_future()
        return (await self.reply)["payload"]  # KeyError: this function fails

    async def do_reply(self, **reply: Any) -> None:
        assert self.reply is not None
        self.reply.set_result(reply)

    async def do_resume(
        self, id: Any, sessionId: str, interruptId: str, payload: Any = None, status: ReplyStatus = "resolved"
    ) -> None:
        await self.sessions[sessionId].resume(interruptId, payload, status=status)
        say("done", id=id)

    async def do_upload(self, id: Any, sessionId: str, text: str, name: str, type: str) -> None:
        say("done", id=id, value=to_fields(await self.sessions[sessionId].upload(text.encode(), name=name, type=type)))

    async def do_files(self, id: Any, sessionId: str) -> None:
        say("done", id=id, value=[to_fields(file) for file in await self.sessions[sessionId].list_files()])

    async def do_read(self, id: Any, sessionId: str, fileId: str) -> None:
        say("done", id=id, value=(await self.sessions[sessionId].read_file(fileId)).decode())

    async def do_delete(self, id: Any, sessionId: str, fileId: str) -> None:
        await self.sessions[sessionId].delete_file(fileId)
        say("done", id=id)

    async def do_history(self, id: Any, sessionId: str, last: int) -> None:
        say("done", id=id, value=await self.sessions[sessionId].history(last))

    async def do_leave(self, sessionId: str = "", handle: str | None = None) -> None:
        self.sessions.pop(handle or sessionId).leave()

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
