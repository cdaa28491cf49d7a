"""The client: one connection to a hub, with its sessions, its commands and its chats."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import attrs
import orjson

from hub.client.answer import Answer
from hub.client.chats import Chats
from hub.client.commands import Commands, request_cancel
from hub.client.failures import ConnectionCut, Failure, Unreachable
from hub.client.feeds import Feeds
from hub.client.files import FileApi, FileContent
from hub.client.http import HttpApi
from hub.client.link import Link, LinkState
from hub.client.pages import PageReader
from hub.client.reader import GroupReader, Reader
from hub.client.session import Session
from hub.client.tokens import TokenSource
from hub.messages import Error, Event, Notice, Reset, StoredFile, Subscribed, Welcome
from hub.messages.numbers import check_finite
from hub.text import hide_passwords


@attrs.define(eq=False, repr=False, kw_only=True)
class Client:
    """A client of one hub, for one event loop. Only the async methods wait."""

    url: str
    patience: float | None
    headers: Mapping[str, str]
    tokens: TokenSource
    link: Link = attrs.field(init=False)
    commands: Commands = attrs.field(init=False)
    feeds: Feeds = attrs.field(init=False)
    chats: Chats = attrs.field(init=False)
    files: FileApi = attrs.field(init=False)
    welcome: Welcome | None = None
    _tasks: set[asyncio.Task[None]] = attrs.Factory(set)  # the link's, and one for each upload of a chat's files
    _is_closing: bool = False

    def __attrs_post_init__(self) -> None:
        self.link = Link(
            url=self.url,
            headers=self.headers,
            tokens=self.tokens,
            on_welcome=self._on_welcome,
            on_message=self._on_message,
            on_loss=self._on_loss,
        )
        http = HttpApi(self.url, self.headers, self.tokens)
        self.commands = Commands(self.link)
        pages = PageReader(http, self.link, self.history)
        self.feeds = Feeds(link=self.link, commands=self.commands, read_page=pages.read)
        self.chats = Chats(link=self.link, commands=self.commands, on_accept=self.feeds.subscribe_from)
        self.files = FileApi(http, self.link)

    async def __aenter__(self) -> "Client":
        self._start_task(self.link.run())
        try:
            await self.link.wait_until_live(self.patience)
            if self.state != "live":
                text = hide_passwords(f"no hub answers at {self.url} ({self.link.reason})")
                raise Unreachable("unreachable", text, retryable=True)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, end every iteration, and wait for the client's tasks.

        Every call that waits raises Closed, and so does the iteration over an unfinished answer.
        """
        self._is_closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()  # raises the error of a task that failed by a fault of this client

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task for close() to wait for. One that has failed by a fault of this client stays until then."""
        self._tasks = {task for task in self._tasks if not task.done() or not task.cancelled() and task.exception()}
        task = asyncio.create_task(work)
        self._tasks.add(task)
        return task

    @property
    def state(self) -> LinkState:
        """The state: `connecting`, `live`, `waiting` (until the next attempt), or `closed` (for good)."""
        return self.link.state

    @property
    def code(self) -> int | None:
        """The code of the last close, or the HTTP status of a refused handshake."""
        return self.link.code

    def states(self) -> AsyncIterator[LinkState]:
        """Yield the present state and each change, up to `closed`.

        Of several changes, a slow reader gets only the last one.
        """
        return self.link.states()

    # --- for programs -----------------------------------------------------------------------------------------------

    async def session(self, session_id: str, *, agent: str = "main") -> Session:
        """Subscribe to a session, and return it when the hub has answered. Raises Refusal, Closed.

        Each call returns an object of its own: see Session. On a hub with sign-in, a session that does not exist and
        one of other people look alike: the session is returned, and its first chat makes it, or raises Refusal.
        """
        session = Session(id=session_id, agent=agent, client=self)
        feed = session.open()
        feed.waits_for_chat = True
        try:
            await feed.first_reply.wait()
            if feed.failure is not None:
                raise feed.failure
        except BaseException:
            session.leave()
            raise
        return session

    @overload
    def subscribe(self, *, agent: str) -> GroupReader: ...
    @overload
    def subscribe(self, *, session: str, after_seq: int | None = None, epoch: str | None = None) -> Reader: ...
    def subscribe(
        self,
        *,
        agent: str | None = None,
        session: str | None = None,
        after_seq: int | None = None,
        epoch: str | None = None,
    ) -> Reader | GroupReader:
        """Return a reader of a session, or a reader of an agent's answers in all sessions.

        A session is read from the given cursor. Without a cursor, it is read from now on; if the client is not yet
        subscribed to the session, the events begin with the oldest running answer. The reader yields each event once
        and in order. If the cursor is invalid, the reader yields a `hub.messages.Reset`: replace your messages of the
        session by those of the reset, and continue. A slow reader of a session reads from the log. The client
        unsubscribes after the reader is gone, unless others read the session.

        A slow reader of an agent raises TooSlow. A reader of an agent misses answers that start while there is no
        connection.
        """
        if (agent is None) == (session is None):
            raise TypeError("subscribe takes an agent or a session")
        reader: Reader | GroupReader
        if session is not None:
            reader = self.feeds.open_reader(session, after_seq, epoch)
        else:
            reader = self.feeds.open_group_reader(agent or "")
        if self.state == "closed":
            self._end_reader(reader)
        return reader

    async def command(self, **frame: Any) -> Notice:
        """Send a command of docs/protocol.md, and return its answer. Do not send `typing`, which has no answer.

        Raises Refusal and Closed. Raises ConnectionCut if the connection is lost before the answer: the hub may have
        executed the command. Raises ValueError for NaN and infinity, which JSON does not have.
        """
        return await self.commands.request(**frame)

    async def history(self, session_id: str, last: int) -> tuple[dict[str, Any], ...]:
        """Return the last finished messages of a session: see Session.history()."""
        answer = await self.command(type="subscribe", sessionId=session_id, history=last)
        return answer.history or () if isinstance(answer, Subscribed) else ()

    # --- chats ------------------------------------------------------------------------------------------------------

    def send_chat(
        self, session: Session, fields: Mapping[str, Any], files: Sequence[FileContent | StoredFile]
    ) -> Answer:
        """Send a chat, now and after each reconnect, until the hub accepts or refuses it: see Session.chat()."""
        if self.state == "closed":
            raise self.link.closed_error()
        frame = {"type": "chat", "sessionId": session.id, "clientMsgId": secrets.token_hex(16)} | dict(fields)
        check_finite(frame)
        orjson.dumps(frame)  # raises TypeError here, not in the task that sends the frame
        for file in files:
            if not isinstance(file, (bytes, StoredFile)):
                Path(file).stat()
        session.open()
        answer = Answer(
            frame=frame,
            reader=self.feeds.open_answer_reader(session.id),
            cancel=lambda session_id, run_id: request_cancel(self.commands, session_id, run_id),
            is_ready=not files,
        )
        self.chats.add(answer)
        if files and not answer.has_failed:
            answer.upload = self._start_task(self._attach_files(answer, tuple(files)))
        return answer

    async def _attach_files(self, answer: Answer, files: Sequence[FileContent | StoredFile]) -> None:
        """Upload the files of a chat, add their parts to it, and send it."""
        try:
            parts = [await self.files.make_part(answer.session_id, file) for file in files]
            answer.frame["parts"] = [*answer.frame.get("parts", ()), *parts]
        except Failure as failure:
            answer.fail(failure)
        answer.is_ready = True
        self.chats.send_ready(answer.session_id)

    # --- callbacks of the link --------------------------------------------------------------------------------------

    def _on_welcome(self, welcome: Welcome) -> None:
        """Subscribe to agents and to sessions again, then send the chats that the hub has not accepted, in order."""
        self.welcome = welcome
        self.feeds.subscribe_all()
        self.chats.send_all()

    def _on_message(self, message: Event | Notice) -> None:
        if isinstance(message, Event):
            self.feeds.deliver(message)
            return
        ref: Any = getattr(message, "ref", None)
        if isinstance(message, Reset):
            self.feeds.reset(message)
        elif isinstance(message, Error) and ref is None:
            self.feeds.receive_error(message)
        elif not self.chats.receive(ref, message):
            self.commands.receive(ref, message)

    def _on_loss(self) -> None:
        """Fail the commands that wait for an answer. Subscriptions and chats continue over the next connection."""
        self.feeds.disconnect()
        self.chats.disconnect()
        cut = ConnectionCut("connection_cut", "the connection to the hub was lost", retryable=True)
        error = self.link.closed_error() if self.state == "closed" else cut
        self.commands.fail(error)
        if self.state == "closed":
            for reader in self.feeds.list_readers():
                self._end_reader(reader)
            self.feeds.fail(error)
            self.chats.fail(error)

    def _end_reader(self, reader: Reader | GroupReader) -> None:
        """End a reader of a closed client. After close(), only a reader of an answer raises Closed."""
        is_answer = isinstance(reader, Reader) and bool(reader.awaits_run or reader.run)
        if self._is_closing and not is_answer:
            reader.end()
        else:
            reader.fail(self.link.closed_error())
