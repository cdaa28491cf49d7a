"""The feeds of a client: its subscriptions to sessions and to agents, and the readers of their events."""

from typing import TYPE_CHECKING
from weakref import WeakSet

import attrs

from hub.client.commands import Commands
from hub.client.failures import Failure, Refusal, refusal_of
from hub.client.feed import Feed
from hub.client.link import Link, LinkLost
from hub.client.reader import GroupReader, Reader, ReadPage
from hub.errors import UnknownSession
from hub.messages import Accepted, Error, Event, Notice, Reset, Subscribed

if TYPE_CHECKING:
    from hub.client.session import Session


@attrs.define(eq=False, kw_only=True)
class Feeds:
    """The feeds by session, and the readers of agents. A connection has at most one subscription for each feed."""

    link: Link
    commands: Commands
    read_page: ReadPage
    _feeds: dict[str, Feed] = attrs.Factory(dict)
    _groups: dict[str, WeakSet[GroupReader]] = attrs.Factory(dict)  # by agent

    # --- for the client ---------------------------------------------------------------------------------------------

    def open(self, session_id: str, seq: int | None = None, epoch: str | None = None) -> Feed:
        """Return the feed of a session. Subscribe it if needed. Only a new feed starts at *seq* and *epoch*."""
        feed = self._feeds.get(session_id)
        if feed is None:
            feed = self._feeds[session_id] = Feed(id=session_id, seq=seq, epoch=epoch)
        if self.link.state == "closed":
            feed.fail(self.link.closed_error())
        elif self.link.state == "live" and feed.is_unsubscribed:
            self._subscribe(feed)
        return feed

    def open_reader(self, session_id: str, after: int | None, epoch: str | None) -> Reader:
        """Return a reader of a session from a cursor, or from the feed's cursor if *after* is None."""
        is_new = session_id not in self._feeds
        feed = self.open(session_id, after, epoch)
        reader = Reader(
            feed=feed,
            read_page=self.read_page,
            cursor=feed.seq if after is None else after,
            epoch=epoch or feed.epoch,
        )
        reader.is_behind = not is_new and reader.cursor != feed.seq
        return reader

    def open_answer_reader(self, session_id: str) -> Reader:
        """Return a reader for the answer to a chat that is not sent yet."""
        feed = self.open(session_id)
        return Reader(feed=feed, read_page=self.read_page, cursor=feed.seq, epoch=feed.epoch, awaits_run=True)

    def open_group_reader(self, agent: str) -> GroupReader:
        """Return a reader of an agent's answers, and subscribe to the agent."""
        reader = GroupReader(agent)
        self._groups.setdefault(agent, WeakSet()).add(reader)
        self._subscribe_group(reader)
        return reader

    def leave(self, session: "Session") -> None:
        """Unsubscribe from the session of a program's object, unless another object or a reader needs it."""
        feed = self._feeds.get(session.id)
        if feed is not None:
            feed.handles.discard(session)
            self.drop_if_unwanted(feed)

    def drop_if_unwanted(self, feed: Feed) -> None:
        """Unsubscribe, unless the program reads the session, or readers of agents follow a run of the session."""
        if feed.is_wanted or (feed.runs and self.list_group_readers()) or self._feeds.get(feed.id) is not feed:
            return
        del self._feeds[feed.id]
        for reader in list(feed.readers):
            reader.end()
        if not feed.is_unsubscribed:
            self.commands.send(
                lambda reply: self._resubscribe_if_needed(feed.id), type="unsubscribe", sessionId=feed.id
            )

    def list_group_readers(self) -> list[GroupReader]:
        return [reader for readers in self._groups.values() for reader in readers]

    def list_readers(self) -> list[Reader | GroupReader]:
        """Return all readers, of sessions and of agents."""
        readers: list[Reader | GroupReader] = [reader for feed in self._feeds.values() for reader in feed.readers]
        return readers + self.list_group_readers()

    # --- subscriptions ----------------------------------------------------------------------------------------------

    def subscribe_all(self) -> None:
        """Subscribe to agents and to sessions again, over a new connection."""
        for reader in self.list_group_readers():
            self._subscribe_group(reader)
        for feed in list(self._feeds.values()):
            if feed.is_wanted or feed.runs:
                self._subscribe(feed)
            else:
                del self._feeds[feed.id]

    def _subscribe(self, feed: Feed) -> None:
        feed.is_subscribing = True
        self.commands.send(
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

    def _resubscribe_if_needed(self, session_id: str) -> None:
        """Subscribe again if a run started before the hub unsubscribed the client: readers of agents follow the run."""
        feed = self._feeds.get(session_id)
        if feed is not None and feed.runs and self.link.state == "live" and feed.is_unsubscribed:
            self._subscribe(feed)

    def _subscribe_group(self, reader: GroupReader) -> None:
        def on_reply(reply: Notice | Failure) -> None:
            if isinstance(reply, Refusal):
                reader.fail(reply)

        self.commands.send(on_reply, type="subscribe", agentId=reader.agent)

    def subscribe_from(self, accepted: Accepted) -> None:
        """Subscribe to the session of a chat, from the chat on, if the hub has refused the subscription before."""
        feed = self._feeds.get(accepted.sessionId)
        if feed is not None and feed.is_unsubscribed:
            feed.seq = accepted.seq - 1 if feed.seq is None else feed.seq
            self._subscribe(feed)

    def _fail_feed(self, feed: Feed, refusal: Refusal) -> None:
        if self._feeds.get(feed.id) is feed:
            del self._feeds[feed.id]
        feed.fail(refusal)

    # --- messages of the hub ----------------------------------------------------------------------------------------

    def receive_error(self, error: Error) -> None:
        """End a subscription that the hub has ended, because the principal may not read the session any more."""
        feed = self._feeds.get(error.sessionId or "")
        if feed is not None and error.code == UnknownSession.code:
            self._fail_feed(feed, refusal_of(error))

    def deliver(self, event: Event) -> None:
        """Pass an event to the readers. Subscribe again if events before it are missing."""
        feed = self._feeds.get(event.sessionId)
        if feed is None:
            if not self.list_group_readers():
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
        self.drop_if_unwanted(feed)

    def reset(self, reset: Reset) -> None:
        feed = self._feeds.get(reset.sessionId)
        if feed is None:
            return
        feed.reset(reset)
        if not feed.is_wanted:
            for reader in self.list_group_readers():
                reader.put(reset)

    def disconnect(self) -> None:
        for feed in self._feeds.values():
            feed.disconnect()

    def fail(self, error: Failure) -> None:
        """Fail all feeds: the client is closed."""
        for feed in self._feeds.values():
            feed.fail(error)
