"""The client: its subscriptions, its pending commands, and what it sends again after a reconnect."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, overload
from weakref import WeakSet

import attrs

from hub.client.failures import ConnectionCut, Failure, Refusal, Unreachable, refusal_of
from hub.client.feed import Feed
from hub.client.link import Link, LinkLost, LinkState
from hub.client.pages import PageReader
from hub.client.reader import GroupReader, Reader
from hub.client.session import Answer, Session, request_cancel
from hub.messages import Accepted, Error, Event, Notice, Reset, Subscribed, Welcome
from hub.messages.numbers import check_finite
from hub.text import hide_passwords

DEFAULT_URL = "ws://localhost:9527/api/v1/ws"
ReplyCallback = Callable[[Notice | Failure], None]


def connect(
    url: str = DEFAULT_URL, *, patience: float | None = 10.0, headers: Mapping[str, str] | None = None
) -> "Client":
    """Return a client, to use as `async with connect() as hub`.

    Entering waits for the first connection. It raises Unreachable if there is none within *patience* seconds (None:
    wait for ever; 0: one try), and Closed if the hub refuses. Later the client reconnects by itself.
    """
    return Client(url=url, patience=patience, headers=dict(headers or {}))


@attrs.define(eq=False, kw_only=True)
class Client:
    """A connection to a hub, for one event loop. Only its async methods wait."""

    url: str
    patience: float | None
    headers: Mapping[str, str]
    link: Link = attrs.field(init=False)
    _pages: PageReader = attrs.field(init=False)
    welcome: Welcome | None = None
    _feeds: dict[str, Feed] = attrs.Factory(dict)
    _groups: dict[str, WeakSet[GroupReader]] = attrs.Factory(dict)
    _chats: dict[int, Answer] = attrs.Factory(
        dict
    )  # by ref: chats that the hub has not accepted yet, in the order of sending
    _commands: dict[int, ReplyCallback] = attrs.Factory(
        dict
    )  # by ref: commands of this connection that wait for an answer
    _refs: "itertools.count[int]" = attrs.Factory(itertools.count)
    _task: asyncio.Task[None] | None = None
    _is_closing: bool = False

    def __attrs_post_init__(self) -> None:
        self.link = Link(
            url=self.url,
            headers=self.headers,
            on_welcome=self._on_welcome,
            on_message=self._on_message,
            on_loss=self._on_loss,
        )
        self._pages = PageReader(self.url, self.headers, self.link, self.history)

    async def __aenter__(self) -> "Client":
        self._task = asyncio.create_task(self.link.run())
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
        """Close the connection, end every iteration, and wait for the client's task.

        A call that still waits for an answer raises Closed.
        """
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()  # raises if the task failed by a fault of this client

    @property
    def state(self) -> LinkState:
        """The state: `connecting`, `live`, `waiting` (for the next try), or `closed` (for good)."""
        return self.link.state

    @property
    def code(self) -> int | None:
        """The code of the last close, or the HTTP status of a refused handshake."""
        return self.link.code

    def states(self) -> AsyncIterator[LinkState]:
        """Yield the present state and each change, up to `closed`; a slow reader gets the last of several changes."""
        return self.link.states()

    # --- for programs -----------------------------------------------------------------------------------------------

    async def session(self, session_id: str, *, agent: str = "main") -> Session:
        """Subscribe to a session, and return it when the hub has confirmed. Raises Refusal, Closed."""
        feed = self._feed(session_id)
        await feed.first_answer.wait()
        if feed.failure is not None:
            raise feed.failure
        return Session(session_id, agent, self)

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
        """Return a reader of a session, from a cursor or from now on; or of an agent's answers in all sessions.

        The reader yields each event once and in order. If the cursor is invalid, it yields a `hub.messages.Reset`:
        replace what you have of the session by the reset's messages, and go on. A slow reader of a session reads from
        the log. A reader of an agent has no log: it raises TooSlow, and misses answers that start without a connection.
        """
        if (agent is None) == (session is None):
            raise TypeError("subscribe takes an agent or a session")
        if session is not None:
            return self._reader(session, after_seq, epoch)
        return self._group_reader(agent or "")

    async def command(self, **frame: Any) -> Notice:
        """Send a command of docs/protocol.md, and return its answer.

        Raises Refusal, Closed, or ConnectionCut: the connection was lost before the answer, and the hub may have
        carried out the command. Raises ValueError for NaN or infinity, which JSON does not have.
        """
        check_finite(frame)
        await self.link.wait_until_live()
        answer: asyncio.Future[Notice] = asyncio.get_running_loop().create_future()
        self._send(lambda reply: _resolve(answer, reply), **frame)
        return await answer

    async def history(self, session_id: str, last: int) -> tuple[dict[str, Any], ...]:
        answer = await self.command(type="subscribe", sessionId=session_id, history=last)
        return answer.history or () if isinstance(answer, Subscribed) else ()

    def send_chat(self, session_id: str, **frame: Any) -> Answer:
        """Send a chat, again after each reconnect, until the hub accepts or refuses it."""
        if self.state == "closed":
            raise self.link.closed_error()
        feed = self._feed(session_id)
        reader = Reader(feed=feed, read_page=self._pages.read, cursor=feed.seq, epoch=feed.epoch, awaits_run=True)
        ref = next(self._refs)
        frame = {"type": "chat", "sessionId": session_id, "clientMsgId": secrets.token_hex(16), "ref": ref} | frame
        answer = self._chats[ref] = Answer(
            frame=frame, reader=reader, cancel=lambda session, run: request_cancel(self, session, run)
        )
        self._send_chat(ref)
        return answer

    def _send_chat(self, ref: int) -> None:
        try:
            self.link.send(**self._chats[ref].frame)
        except Refusal as refusal:
            self._chats.pop(ref).fail(refusal)

    def leave(self, session_id: str) -> None:
        feed = self._feeds.get(session_id)
        if feed is not None:
            feed.is_wanted = False
            self._drop_if_unwanted(feed)

    # --- feeds ------------------------------------------------------------------------------------------------------

    def _feed(self, session_id: str, seq: int | None = None, epoch: str | None = None) -> Feed:
        feed = self._feeds.get(session_id)
        if feed is None:
            feed = self._feeds[session_id] = Feed(id=session_id, seq=seq, epoch=epoch)
        feed.is_wanted = True
        if self.state == "closed":
            feed.fail(self.link.closed_error())
        elif self.state == "live" and not (feed.is_joined or feed.is_stale):
            self._join(feed)
        return feed

    def _reader(self, session_id: str, after: int | None, epoch: str | None) -> Reader:
        new = session_id not in self._feeds
        feed = self._feed(session_id, after, epoch)
        reader = Reader(
            feed=feed,
            read_page=self._pages.read,
            cursor=feed.seq if after is None else after,
            epoch=epoch or feed.epoch,
        )
        reader.is_behind = not new and reader.cursor != feed.seq
        if self.state == "closed":
            self._finish(reader)
        return reader

    def _group_reader(self, agent: str) -> GroupReader:
        reader = GroupReader(agent)
        if self.state == "closed":
            self._finish(reader)
        self._groups.setdefault(agent, WeakSet()).add(reader)
        self._listen(reader)
        return reader

    def _join(self, feed: Feed) -> None:
        feed.is_stale = True
        self._send(
            lambda reply: self._on_subscribe_reply(feed, reply), type="subscribe", sessionId=feed.id, **feed.cursor()
        )

    def _on_subscribe_reply(self, feed: Feed, reply: Notice | Failure) -> None:
        if isinstance(reply, Subscribed):
            feed.join(reply)
        elif isinstance(reply, Refusal):
            if reply.retryable:
                raise LinkLost(reply.message)  # subscribe again after the backoff
            self._feeds.pop(feed.id, None)
            feed.fail(reply)

    def _drop_if_unwanted(self, feed: Feed) -> None:
        """Unsubscribe if the program does not read the session, and no agent's reader follows a run in it."""
        if feed.is_wanted or (feed.runs and self._group_readers()):
            return
        self._feeds.pop(feed.id, None)
        for reader in list(feed.readers):
            reader.end()
        if feed.is_joined or feed.is_stale:
            self._send(lambda reply: self._rejoin_if_running(feed.id), type="unsubscribe", sessionId=feed.id)

    def _rejoin_if_running(self, session_id: str) -> None:
        """Subscribe again if a run started before the hub carried out the unsubscribe: an agent's reader follows it."""
        feed = self._feeds.get(session_id)
        if feed is not None and feed.runs and self.state == "live" and not (feed.is_joined or feed.is_stale):
            self._join(feed)

    def _listen(self, reader: GroupReader) -> None:
        def on_reply(reply: Notice | Failure) -> None:
            if isinstance(reply, Refusal):
                reader.fail(reply)

        self._send(on_reply, type="subscribe", agentId=reader.agent)

    def _group_readers(self) -> list[GroupReader]:
        return [reader for readers in self._groups.values() for reader in readers]

    # --- callbacks of the link --------------------------------------------------------------------------------------

    def _send(self, on_reply: ReplyCallback, **frame: Any) -> None:
        """Send a command; *on_reply* gets its answer or its loss. Without a connection, do nothing."""
        if self.state == "live":
            ref = next(self._refs)
            self.link.send(ref=ref, **frame)
            self._commands[ref] = on_reply

    def _on_welcome(self, welcome: Welcome) -> None:
        """Subscribe again, each feed from its cursor; then send the chats that are not accepted, in order."""
        self.welcome = welcome
        for reader in self._group_readers():
            self._listen(reader)
        for feed in list(self._feeds.values()):
            if feed.is_wanted or feed.runs:
                self._join(feed)
        for ref in list(self._chats):
            self._send_chat(ref)

    def _on_message(self, message: Event | Notice) -> None:
        if isinstance(message, Event):
            self._deliver(message)
            return
        ref: Any = getattr(message, "ref", None)
        if isinstance(message, Reset):
            self._reset(message)
        elif ref in self._chats:
            self._on_chat_reply(ref, message)
        elif ref in self._commands:
            self._commands.pop(ref)(refusal_of(message) if isinstance(message, Error) else message)

    def _on_chat_reply(self, ref: int, reply: Notice) -> None:
        if isinstance(reply, Error) and reply.code == "draining":
            self.link.retry_after = (reply.retryAfterMs or 0) / 1000
            return  # the hub is about to close the connection: send the chat to the next one
        answer = self._chats.pop(ref)
        if isinstance(reply, Accepted):
            self.link.progress = True
            answer.accept(reply)
        elif isinstance(reply, Error):
            answer.fail(refusal_of(reply))

    def _deliver(self, event: Event) -> None:
        feed = self._feeds.get(event.sessionId)
        if feed is None:
            if not self._group_readers():
                return  # the program has just left this session or group
            feed = self._feeds[event.sessionId] = Feed(id=event.sessionId)
        if feed.is_stale or feed.is_old(event):
            return
        if not feed.is_next(event):
            if feed.gap == feed.seq:
                raise LinkLost(f"an event of session {feed.id} is missing")
            feed.gap = feed.seq
            self._join(feed)
            return
        self.link.progress = True
        feed.deliver(event)
        if event.runId is not None:
            for reader in list(self._groups.get(event.agentId or "", ())):
                reader.put(event)
        self._drop_if_unwanted(feed)

    def _reset(self, reset: Reset) -> None:
        feed = self._feeds.get(reset.sessionId)
        if feed is None:
            return
        feed.reset(reset)
        if not feed.is_wanted:
            for reader in self._group_readers():
                reader.put(reset)

    def _on_loss(self) -> None:
        """Fail the commands that wait for an answer; subscriptions and chats go on at the next connection."""
        commands, self._commands = self._commands, {}
        for feed in self._feeds.values():
            feed.disconnect()
        for on_reply in commands.values():
            on_reply(ConnectionCut("connection_cut", "the connection to the hub was lost", retryable=True))
        if self.state == "closed":
            self._end()

    def _end(self) -> None:
        error = self.link.closed_error()
        readers: list[Reader | GroupReader] = [reader for feed in self._feeds.values() for reader in feed.readers]
        for reader in readers + self._group_readers():
            self._finish(reader)
        for feed in self._feeds.values():
            feed.fail(error)
        for answer in self._chats.values():
            answer.fail(error)
        self._chats.clear()

    def _finish(self, reader: Reader | GroupReader) -> None:
        """End an iteration; if the program itself closed the client, raise only in an iteration over an answer."""
        if self._is_closing and not (isinstance(reader, Reader) and (reader.awaits_run or reader.run)):
            reader.end()
        else:
            reader.fail(self.link.closed_error())


def _resolve(future: "asyncio.Future[Notice]", reply: Notice | Failure) -> None:
    if future.done():
        return  # the caller was cancelled
    if isinstance(reply, Failure):
        future.set_exception(reply)
    else:
        future.set_result(reply)
