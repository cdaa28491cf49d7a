"""The client: what it hears, what it has asked, and what it sends again after a lost connection."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, overload
from weakref import WeakSet

import attrs

from hub.client.failures import ConnectionCut, Failure, Refusal, Unreachable, refusal
from hub.client.feed import Feed
from hub.client.link import Link, LinkLost, State
from hub.client.pages import Pages
from hub.client.reader import GroupReader, Reader
from hub.client.session import Answer, Session, cancel
from hub.messages import Accepted, Error, Event, Notice, Reset, Subscribed, Welcome
from hub.messages.numbers import check_finite
from hub.text import hide_passwords

URL = "ws://localhost:9527/api/v1/ws"
Answered = Callable[[Notice | Failure], None]


def connect(url: str = URL, *, patience: float | None = 10.0, headers: Mapping[str, str] | None = None) -> "Client":
    """Return a client, to be entered: `async with connect() as hub`.

    Entering waits for the first connection, and raises Unreachable where there is none within *patience* seconds (None:
    it waits for ever; 0: one try), or Closed where the hub refuses. From then on lost connections are made again.
    """
    return Client(url=url, patience=patience, headers=dict(headers or {}))


@attrs.define(eq=False, kw_only=True)
class Client:
    """A hub, as one program sees it. For one event loop; every method but the async ones returns at once."""

    url: str
    patience: float | None
    headers: Mapping[str, str]
    link: Link = attrs.field(init=False)
    _pages: Pages = attrs.field(init=False)
    welcome: Welcome | None = None
    _feeds: dict[str, Feed] = attrs.Factory(dict)
    _groups: dict[str, WeakSet[GroupReader]] = attrs.Factory(dict)
    _chats: dict[int, Answer] = attrs.Factory(dict)  # not accepted yet, in the order in which they were sent
    _asked: dict[int, Answered] = attrs.Factory(dict)  # commands under way on this connection
    _refs: "itertools.count[int]" = attrs.Factory(itertools.count)
    _task: asyncio.Task[None] | None = None
    _left: bool = False

    def __attrs_post_init__(self) -> None:
        self.link = Link(url=self.url, headers=self.headers, opened=self._opened, heard=self._heard, lost=self._lost)
        self._pages = Pages(self.url, self.headers, self.link, self.history)

    async def __aenter__(self) -> "Client":
        self._task = asyncio.create_task(self.link.run())
        try:
            await self.link.until_live(self.patience)
            if self.state != "live":
                why = hide_passwords(f"no hub answers at {self.url} ({self.link.reason})")
                raise Unreachable("unreachable", why, retryable=True)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Say farewell, end every iteration, and wait for the client's task; what is not answered yet raises Closed."""
        self._left = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()  # a fault of this client, if it has one, is not kept quiet

    @property
    def state(self) -> State:
        """`connecting`, `live`, `waiting` (before the next try), or `closed`, for good."""
        return self.link.state

    @property
    def code(self) -> int | None:
        """The code of the last close; where the hub refused the handshake, its HTTP status."""
        return self.link.code

    def states(self) -> AsyncIterator[State]:
        """Yield the state now, and each change, up to `closed`; who is slow sees the last of several."""
        return self.link.states()

    # --- what a program does ----------------------------------------------------------------------------------------

    async def session(self, session_id: str, *, agent: str = "main") -> Session:
        """Join a session, or make it; returns when it is heard. Raises Refusal, Closed."""
        feed = self._feed(session_id)
        await feed.answered.wait()
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
        """Read all events of a session, from a place in it or from now on; or an agent's answers in all sessions.

        Iterate what is returned. It yields each event once, in order, and a `hub.messages.Reset` where the place means
        nothing any more: then forget the session, take its messages, and go on. Who reads slowly is read on to from the
        log; an agent's group has none, and raises TooSlow. An answer of a group that starts while there is no
        connection is not heard.
        """
        if (agent is None) == (session is None):
            raise TypeError("subscribe takes an agent or a session")
        if session is not None:
            return self._reader(session, after_seq, epoch)
        return self._group_reader(agent or "")

    async def command(self, **frame: Any) -> Notice:
        """Send a command of docs/protocol.md, and return its answer.

        Raises Refusal, Closed, or ConnectionCut where the connection was lost meanwhile: nobody knows whether it was
        carried out. Raises ValueError if it has NaN or infinity, which JSON does not have.
        """
        check_finite(frame)
        await self.link.until_live()
        answer: asyncio.Future[Notice] = asyncio.get_running_loop().create_future()
        self._send(lambda said: _settle(answer, said), **frame)
        return await answer

    async def history(self, session_id: str, last: int) -> tuple[dict[str, Any], ...]:
        answer = await self.command(type="subscribe", sessionId=session_id, history=last)
        return answer.history or () if isinstance(answer, Subscribed) else ()

    def send_chat(self, session_id: str, **frame: Any) -> Answer:
        """Send a chat, and again after each reconnect, until it is accepted or refused."""
        if self.state == "closed":
            raise self.link.closed()
        feed = self._feed(session_id)
        reader = Reader(feed=feed, pages=self._pages.read, cursor=feed.seq, epoch=feed.epoch, held=True)
        ref = next(self._refs)
        frame = {"type": "chat", "sessionId": session_id, "clientMsgId": secrets.token_hex(16), "ref": ref} | frame
        answer = self._chats[ref] = Answer(
            frame=frame, reader=reader, cancel=lambda session, run: cancel(self, session, run)
        )
        self._send_chat(ref)
        return answer

    def _send_chat(self, ref: int) -> None:
        try:
            self.link.send(**self._chats[ref].frame)
        except Refusal as too_large:
            self._chats.pop(ref).fail(too_large)

    def leave(self, session_id: str) -> None:
        feed = self._feeds.get(session_id)
        if feed is not None:
            feed.kept = False
            self._let_go(feed)

    # --- feeds ------------------------------------------------------------------------------------------------------

    def _feed(self, session_id: str, seq: int | None = None, epoch: str | None = None) -> Feed:
        feed = self._feeds.get(session_id)
        if feed is None:
            feed = self._feeds[session_id] = Feed(id=session_id, seq=seq, epoch=epoch)
        feed.kept = True
        if self.state == "closed":
            feed.fail(self.link.closed())
        elif self.state == "live" and not (feed.joined or feed.stale):
            self._join(feed)
        return feed

    def _reader(self, session_id: str, after: int | None, epoch: str | None) -> Reader:
        new = session_id not in self._feeds
        feed = self._feed(session_id, after, epoch)
        reader = Reader(
            feed=feed, pages=self._pages.read, cursor=feed.seq if after is None else after, epoch=epoch or feed.epoch
        )
        reader.behind = not new and reader.cursor != feed.seq
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
        feed.stale = True
        self._send(lambda said: self._joined(feed, said), type="subscribe", sessionId=feed.id, **feed.cursor())

    def _joined(self, feed: Feed, said: Notice | Failure) -> None:
        if isinstance(said, Subscribed):
            feed.join(said)
        elif isinstance(said, Refusal):
            if said.retryable:
                raise LinkLost(said.message)  # and again, after a while
            self._feeds.pop(feed.id, None)
            feed.fail(said)

    def _let_go(self, feed: Feed) -> None:
        """Hear a session no more where nobody asked for it, and no answer that a group hears is going on."""
        if feed.kept or (feed.runs and self._group_readers()):
            return
        self._feeds.pop(feed.id, None)
        for reader in list(feed.readers):
            reader.end()
        if feed.joined or feed.stale:
            self._send(lambda said: self._gone(feed.id), type="unsubscribe", sessionId=feed.id)

    def _gone(self, session_id: str) -> None:
        """An answer that began before the hub had left the session is heard by nobody but who joins again."""
        feed = self._feeds.get(session_id)
        if feed is not None and feed.runs and self.state == "live" and not (feed.joined or feed.stale):
            self._join(feed)

    def _listen(self, reader: GroupReader) -> None:
        def answered(said: Notice | Failure) -> None:
            if isinstance(said, Refusal):
                reader.fail(said)

        self._send(answered, type="subscribe", agentId=reader.agent)

    def _group_readers(self) -> list[GroupReader]:
        return [reader for readers in self._groups.values() for reader in readers]

    # --- what the link tells ----------------------------------------------------------------------------------------

    def _send(self, answered: Answered, **frame: Any) -> None:
        """Send a command whose answer, or the loss of it, goes to *answered*; where there is no connection, neither."""
        if self.state == "live":
            ref = next(self._refs)
            self.link.send(ref=ref, **frame)
            self._asked[ref] = answered

    def _opened(self, welcome: Welcome) -> None:
        """Ask for everything again, each from where it stands; then what was not accepted, in order."""
        self.welcome = welcome
        for reader in self._group_readers():
            self._listen(reader)
        for feed in list(self._feeds.values()):
            if feed.kept or feed.runs:
                self._join(feed)
        for ref in list(self._chats):
            self._send_chat(ref)

    def _heard(self, said: Event | Notice) -> None:
        if isinstance(said, Event):
            self._event(said)
            return
        ref: Any = getattr(said, "ref", None)
        if isinstance(said, Reset):
            self._reset(said)
        elif ref in self._chats:
            self._chat_answered(ref, said)
        elif ref in self._asked:
            self._asked.pop(ref)(refusal(said) if isinstance(said, Error) else said)

    def _chat_answered(self, ref: int, said: Notice) -> None:
        if isinstance(said, Error) and said.code == "draining":
            self.link.retry_after = (said.retryAfterMs or 0) / 1000
            return  # the hub hangs up in a moment, and the next one is asked
        answer = self._chats.pop(ref)
        if isinstance(said, Accepted):
            self.link.progress = True
            answer.accept(said)
        elif isinstance(said, Error):
            answer.fail(refusal(said))

    def _event(self, event: Event) -> None:
        feed = self._feeds.get(event.sessionId)
        if feed is None:
            if not self._group_readers():
                return  # of a session that was just left, or a group whose readers are gone
            feed = self._feeds[event.sessionId] = Feed(id=event.sessionId)
        if feed.stale or feed.old(event):
            return
        if not feed.fits(event):
            if feed.hole == feed.seq:
                raise LinkLost(f"the hub left out an event of session {feed.id}")
            feed.hole = feed.seq
            self._join(feed)
            return
        self.link.progress = True
        feed.take(event)
        if event.runId is not None:
            for reader in list(self._groups.get(event.agentId or "", ())):
                reader.put(event)
        self._let_go(feed)

    def _reset(self, reset: Reset) -> None:
        feed = self._feeds.get(reset.sessionId)
        if feed is None:
            return
        feed.reset(reset)
        if not feed.kept:
            for reader in self._group_readers():
                reader.put(reset)

    def _lost(self) -> None:
        """The connection is gone: who waits for an answer to a command is told; the rest is asked again."""
        asked, self._asked = self._asked, {}
        for feed in self._feeds.values():
            feed.cut()
        for answered in asked.values():
            answered(ConnectionCut("connection_cut", "the connection to the hub was lost", retryable=True))
        if self.state == "closed":
            self._end()

    def _end(self) -> None:
        closed = self.link.closed()
        readers: list[Reader | GroupReader] = [one for feed in self._feeds.values() for one in feed.readers]
        for reader in readers + self._group_readers():
            self._finish(reader)
        for feed in self._feeds.values():
            feed.fail(closed)
        for answer in self._chats.values():
            answer.fail(closed)
        self._chats.clear()

    def _finish(self, reader: Reader | GroupReader) -> None:
        """End an iteration: quietly where this program closed, unless it waits for an answer."""
        if self._left and not (isinstance(reader, Reader) and (reader.held or reader.run)):
            reader.end()
        else:
            reader.fail(self.link.closed())


def _settle(answer: "asyncio.Future[Notice]", said: Notice | Failure) -> None:
    if answer.done():
        return  # who asked has gone
    if isinstance(said, Failure):
        answer.set_exception(said)
    else:
        answer.set_result(said)
