"""Use cases that read stored sessions, messages and events."""

from hub.access.principal import Principal
from hub.commands.guard import find_readers, make_unknown_session_error
from hub.commands.hub import Hub
from hub.delivery.channel import Channel
from hub.ids import id_of, key_prefix
from hub.messages import EventPage, HistoryMessage, Page, PageRequest, SessionState, SessionSummary, State
from hub.storage.records import Head, SessionQuery

END_OF_TIME = 10**15 - 1  # in ms; later than the time of any message


async def list_sessions(
    hub: Hub,
    principal: Principal,
    request: PageRequest,
    agent: str | None = None,
    since: int = 0,
    until: int = END_OF_TIME,
) -> Page[SessionSummary]:
    """Return a page of sessions, sorted by the time of their last messages. Raises BadQuery for a bad cursor."""
    page = await hub.node.log.sessions.list(build_session_query(hub, principal, agent, since, until), request)
    rows = [
        SessionSummary(
            sessionId=id_of(row.key),
            epoch=row.epoch,
            messages=row.messages,
            ts=row.ts,
            title=row.title,
            metadata=row.metadata,
        )
        for row in page.rows
    ]
    return Page(rows, page.next_cursor)


def build_session_query(hub: Hub, principal: Principal, agent: str | None, since: int, until: int) -> SessionQuery:
    """Return the query for the sessions that a principal may read."""
    prefix, readers = key_prefix(principal.tenant), find_readers(hub, principal)
    return SessionQuery(prefix=prefix, readers=readers, agent=agent, since=since, until=until)


async def get_session(hub: Hub, principal: Principal, session_id: str) -> SessionState:
    """Return the state of a session. Raises UnknownSession."""
    return await read_state(hub, await find_head(hub, principal, session_id))


async def list_messages(hub: Hub, principal: Principal, session_id: str, request: PageRequest) -> Page[HistoryMessage]:
    """Return a page of finished messages in their order. Raises UnknownSession and BadQuery."""
    head = await find_head(hub, principal, session_id)
    return await hub.node.log.sessions.list_messages(head.key, request)


async def read_events(hub: Hub, principal: Principal, session_id: str, after: int) -> EventPage:
    """Return a page of the events after the seq *after*, or after the retention floor if the floor is later.

    Raises UnknownSession, LogDamaged, StorageUnavailable.
    """
    head = await find_head(hub, principal, session_id)
    page = await hub.node.log.events.read(head.key, max(after, head.floor), head.seq)
    more = bool(page) and page[-1].seq < head.seq
    return EventPage(data=[*page], epoch=head.epoch, seq=head.seq, floor=head.floor, more=more)


async def find_head(hub: Hub, principal: Principal, session_id: str) -> Head:
    """Return the head of a session. Raises UnknownSession."""
    head = await hub.node.log.sessions.find(hub.make_key(principal, session_id))
    if head is None:
        raise make_unknown_session_error(session_id)
    return head


async def read_state(hub: Hub, head: Head | Channel) -> SessionState:
    """Return the state of a session. Raises UnknownSession.

    *head* is the stored head of the session, or its channel if the caller uses the session.
    """
    label = await hub.node.log.sessions.find_label(head.key)
    # No await from here on: the seq of a channel must match the live state.
    seq = head.seq if isinstance(head, Head) else head.head
    session_id, session = id_of(head.key), hub.node.sessions.get(head.key)
    if label is None or head.epoch is None:
        raise make_unknown_session_error(session_id)
    idle = State(sessionId=session_id, state="idle", active=(), queue=())
    state, questions = (idle, ()) if session is None else (session.make_state(), session.list_questions())
    return SessionState(
        sessionId=session_id,
        epoch=head.epoch,
        seq=seq,
        floor=head.floor,
        state=state.state,
        active=state.active,
        queue=state.queue,
        title=label.title,
        metadata=label.metadata,
        interrupts=questions or None,
    )
