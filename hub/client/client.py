"""The client: its subscriptions, its pending commands, and the chats that it sends again after a reconnect."""

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
from hub.client.tokens import TokenSource
from hub.errors import UnknownSession
from hub.messages import Accepted, Error, Event, Notice, Reset, Subscribed, Welcome
from hub.messages.numbers import check_finite
from hub.text import hide_passwords

ReplyCallback = Callable[[Notice | Failure], None]


@attrs.define(eq=False, repr=False, kw_only=True)
class Client:
    """A client of one hub, for one event loop. Only the async methods wait."""

    url: str
    patience: float | None
    headers: Mapping[str, str]
    tokens: TokenSource
    link: Link = attrs.field(init=False)
    _pages: PageReader = attrs.field(init=False)
    welcome: Welcome | None = None
    _feeds: dict[str, Feed] = attrs.Factory(dict)
    _groups: dict[str, WeakSet[GroupReader]] = attrs.Factory(dict)  # by agent
    # By ref: the chats that the hub has not accepted yet, in the order of sending.
    _chats: dict[int, Answer] = attrs.Factory(dict)
    # By ref: the callbacks of commands that were sent over this connection and have no answer yet.
    _commands: dict[int, ReplyCallback] = attrs.Factory(dict)
    _refs: "itertools.count[int]" = attrs.Factory(itertools.count)
    _task: asyncio.Task[None] | None = None
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

        Every call that waits raises Closed, and so does the iteration over an unfinished answer.
        """
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()  # raises the error of a task that failed by a fault of this client

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

        On a hub with sign-in, a session that does not exist and one of other people look alike: the session is
        returned, and its first chat makes it, or raises Refusal.
        """
        feed = self._open_feed(session_id)
        feed.waits_for_chat = True
        await feed.first_reply.wait()
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
        """Return a reader of a session, or a reader of an agent's answers in all sessions.

        A session is read from the given cursor. Without a cursor, it is read from now on; if the client is not yet
        subscribed to the session, the events begin with the oldest running answer. The reader yields each event once
        and in order. If the cursor is invalid, the reader yields a `hub.messages.Reset`: replace your messages of the
        session by those of the reset, and continue. A slow reader of a session reads from the log.

        A slow reader of an agent raises TooSlow. A reader of an agent misses answers that start while there is no
        connection.
        """
        if (agent is None) == (session is None):
            raise TypeError("subscribe takes an agent or a session")
        if session is not None:
            return self._open_reader(session, after_seq, epoch)
        return self._open_group_reader(agent or "")

    async def command(self, **frame: Any) -> Notice:
        """Send a command of docs/protocol.md, and return its answer. Do not send `typing`, which has no answer.

        Raises Refusal and Closed. Raises ConnectionCut if the connection is lost before the answer: the hub may have
        executed the command. Raises ValueError for NaN and infinity, which JSON does not have.
        """
        check_finite(frame)
        await self.link.wait_until_live()
        answer: asyncio.Future[Notice] = asyncio.get_running_loop().create_future()
        self._send(lambda reply: _resolve(answer, reply), **frame)
        return await answer

    async def history(self, session_id: str, last: int) -> tuple[dict[str, Any], ...]:
        """Return the last finished messages of a session: see Session.history()."""
        answer = await self.command(type="subscribe", sessionId=session_id, history=last)
        return answer.history or () if isinstance(answer, Subscribed) else ()

    def send_chat(self, session_id: str, **frame: Any) -> Answer:
        """Send a chat, now and after each reconnect, until the hub accepts or refuses it. Return its answer.

        Raises Closed.
        """
        if self.state == "closed":
            raise self.link.closed_error()
        feed = self._open_feed(session_id)
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
        """Unsubscribe from a session, and end its readers: see Session.leave()."""
        feed = self._feeds.get(session_id)
        if feed is not None:
            feed.is_wanted = False
            self._drop_if_unwanted(feed)

    # --- feeds ------------------------------------------------------------------------------------------------------

    def _open_feed(self, session_id: str, seq: int | None = None, epoch: str | None = None) -> Feed:
        """Return the feed of a session. Subscribe it if needed. Only a new feed starts at *seq* and *epoch*."""
        feed = self._feeds.get(session_id)
        if feed is None:
            feed = self._feeds[session_id] = Feed(id=session_id, seq=seq, epoch=epoch)
        feed.is_wanted = True
        if self.state == "closed":
            feed.fail(self.link.closed_error())
        elif self.state == "live" and feed.is_unsubscribed:
            self._subscribe(feed)
        return feed

    def _open_reader(self, session_id: str, after: int | None, epoch: str | None) -> Reader:
        is_new = session_id not in self._feeds
        feed = self._open_feed(session_id, after, epoch)
        reader = Reader(
            feed=feed,
            read_page=self._pages.read,
            cursor=feed.seq if after is None else after,
            epoch=epoch or feed.epoch,
        )
        reader.is_behind = not is_new and reader.cursor != feed.seq
        if self.state == "closed":
            self._end_reader(reader)
        return reader

    def _open_group_reader(self, agent: str) -> GroupReader:
        reader = GroupReader(agent)
        if self.state == "closed":
            self._end_reader(reader)
        self._groups.setdefault(agent, WeakSet()).add(reader)
        self._subscribe_group(reader)
        return reader

    def _subscribe(self, feed: Feed) -> None:
        feed.is_subscribing = True
        self._send(
            lambda reply: self._on_subscribe_reply(feed, reply), type="subscribe", sessionId=feed.id, **feed.cursor()
        )

    def _on_subscribe_reply(self, feed: Feed, reply: Notice | Failure) -> None:
        if isinstance(reply, Subscribed):
            feed.confirm(reply)
        elif isinstance(reply, Refusal):
            if reply.retryable:
                raise LinkLost(reply.message)  # subscribe again after the backoff
            if reply.code == UnknownSession.code and feed.waits_for_chat:
                feed.wait_for_chat()
            else:
                self._fail_feed(feed, reply)

    def _on_lost_role(self, error: Error) -> None:
        """End a subscription that the hub has ended, because the principal may not read the session any more."""
        feed = self._feeds.get(error.sessionId or "")
        if feed is not None and error.code == UnknownSession.code:
            self._fail_feed(feed, refusal_of(error))

    def _fail_feed(self, feed: Feed, refusal: Refusal) -> None:
        self._feeds.pop(feed.id, None)
        feed.fail(refusal)

    def _drop_if_unwanted(self, feed: Feed) -> None:
        """Unsubscribe, unless the program reads the session, or readers of agents follow a run of the session."""
        if feed.is_wanted or (feed.runs and self._group_readers()):
            return
        self._feeds.pop(feed.id, None)
        for reader in list(feed.readers):
            reader.end()
        if not feed.is_unsubscribed:
            self._send(lambda reply: self._resubscribe_if_running(feed.id), type="unsubscribe", sessionId=feed.id)

    def _resubscribe_if_running(self, session_id: str) -> None:
        """Subscribe again if a run started before the hub unsubscribed the client: readers of agents follow the run."""
        feed = self._feeds.get(session_id)
        if feed is not None and feed.runs and self.state == "live" and feed.is_unsubscribed:
            self._subscribe(feed)

    def _subscribe_group(self, reader: GroupReader) -> None:
        def on_reply(reply: Notice | Failure) -> None:
            if isinstance(reply, Refusal):
                reader.fail(reply)

        self._send(on_reply, type="subscribe", agentId=reader.agent)

    def _group_readers(self) -> list[GroupReader]:
        return [reader for readers in self._groups.values() for reader in readers]

    # --- callbacks of the link --------------------------------------------------------------------------------------

    def _send(self, on_reply: ReplyCallback, **frame: Any) -> None:
        """Send a command if the link is live. *on_reply* gets its answer, or a Failure if the connection is lost."""
        if self.state == "live":
            ref = next(self._refs)
            self.link.send(ref=ref, **frame)
            self._commands[ref] = on_reply

    def _on_welcome(self, welcome: Welcome) -> None:
        """Subscribe to agents and to sessions again, then send the chats that the hub has not accepted, in order."""
        self.welcome = welcome
        for reader in self._group_readers():
            self._subscribe_group(reader)
        for feed in list(self._feeds.values()):
            if feed.is_wanted or feed.runs:
                self._subscribe(feed)
        for ref in list(self._chats):
            self._send_chat(ref)

    def _on_message(self, message: Event | Notice) -> None:
        if isinstance(message, Event):
            self._deliver(message)
            return
        ref: Any = getattr(message, "ref", None)
        if isinstance(message, Reset):
            self._reset(message)
        elif isinstance(message, Error) and ref is None:
            self._on_lost_role(message)
        elif ref in self._chats:
            self._on_chat_reply(ref, message)
        elif ref in self._commands:
            self._commands.pop(ref)(refusal_of(message) if isinstance(message, Error) else message)

    def _on_chat_reply(self, ref: int, reply: Notice) -> None:
        if isinstance(reply, Error) and reply.code == "draining":
            self.link.retry_after = (reply.retryAfterMs or 0) / 1000
            return  # the hub will close the connection: the chat is sent again over the next one
        answer = self._chats.pop(ref)
        if isinstance(reply, Accepted):
            self.link.has_progress = True
            self._subscribe_from(reply)
            answer.accept(reply)
        elif isinstance(reply, Error):
            answer.fail(refusal_of(reply))

    def _subscribe_from(self, accepted: Accepted) -> None:
        """Subscribe to the session of a chat, from the chat on, if the hub has refused the subscription before."""
        feed = self._feeds.get(accepted.sessionId)
        if feed is not None and feed.is_unsubscribed:
            feed.seq = accepted.seq - 1 if feed.seq is None else feed.seq
            self._subscribe(feed)

    def _deliver(self, event: Event) -> None:
        feed = self._feeds.get(event.sessionId)
        if feed is None:
            if not self._group_readers():
                return  # the program has left the session, and the hub does not know this yet
            feed = self._feeds[event.sessionId] = Feed(id=event.sessionId)
        if feed.is_subscribing or feed.is_old(event):
            return
        if not feed.is_next(event):
            if feed.missing_after == feed.seq:  # still missing after the second subscribe
                raise LinkLost(f"an event of session {feed.id} is missing")
            feed.missing_after = feed.seq
            self._subscribe(feed)
            return
        self.link.has_progress = True
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
        """Fail the commands that wait for an answer. Subscriptions and chats continue over the next connection."""
        commands, self._commands = self._commands, {}
        for feed in self._feeds.values():
            feed.disconnect()
        cut = ConnectionCut("connection_cut", "the connection to the hub was lost", retryable=True)
        error = self.link.closed_error() if self.state == "closed" else cut
        for on_reply in commands.values():
            on_reply(error)
        if self.state == "closed":
            self._end_all()

    def _end_all(self) -> None:
        """End all readers, feeds and answers of a closed client."""
        error = self.link.closed_error()
        readers: list[Reader | GroupReader] = [reader for feed in self._feeds.values() for reader in feed.readers]
        for reader in readers + self._group_readers():
            self._end_reader(reader)
        for feed in self._feeds.values():
            feed.fail(error)
        for answer in self._chats.values():
            answer.fail(error)
        self._chats.clear()

    def _end_reader(self, reader: Reader | GroupReader) -> None:
        """End a reader of a closed client. After close(), only a reader of an answer raises Closed."""
        is_answer = isinstance(reader, Reader) and bool(reader.awaits_run or reader.run)
        if self._is_closing and not is_answer:
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
