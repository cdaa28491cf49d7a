"""Use cases that create, label and delete sessions."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from hub.access.principal import Principal
from hub.commands.guard import check_grants, check_session, find_grants, make_unknown_session_error, use_session
from hub.commands.history import END_OF_TIME, build_session_query, read_state
from hub.commands.hub import Hub
from hub.errors import BadFrame, Denied, TooLarge, UnknownSession
from hub.ids import Key
from hub.limits import format_size
from hub.messages import DeletionCount, PageRequest, SessionState
from hub.node import deleting
from hub.sessions.session import LiveSession
from hub.storage.records import SessionQuery, SessionRow

PAGE_SIZE = 500  # the number of sessions that one query of clear_sessions() lists


async def create_session(hub: Hub, principal: Principal, session_id: str | None = None) -> tuple[SessionState, bool]:
    """Create a session unless it exists. If *session_id* is None, use a new id.

    Return the state of the session, and True if the session is new. Raises SessionDeleted.
    """
    key = hub.make_key(principal, session_id or hub.node.seams.new_id("s"))
    async with use_session(hub, principal, "read", key, may_create=True) as session:
        is_new = await hub.node.loader.create(session)
        return await read_state(hub, session.channel), is_new


async def relabel(hub: Hub, principal: Principal, session_id: str, changes: Mapping[str, Any]) -> SessionState:
    """Set the `title` and `metadata` in *changes*.

    If the session does not exist, it is created, unless all values are None: then UnknownSession is raised.
    Raises also BadFrame, TooLarge and SessionDeleted.
    """
    limits, title, metadata = hub.limits, changes.get("title"), changes.get("metadata")
    if title is not None and len(title) > limits.title_length:
        raise BadFrame(f"the title of a session has at most {limits.title_length} characters: choose a shorter one")
    if metadata and len(orjson.dumps(metadata)) > limits.metadata_bytes:
        max_size = format_size(limits.metadata_bytes)
        raise TooLarge(f"the metadata of a session is at most {max_size} of JSON: store the rest elsewhere")
    key = hub.make_key(principal, session_id)
    async with use_session(hub, principal, "write", key, may_create=True) as session:
        if any(value is not None for value in changes.values()):
            await hub.node.loader.create(session)
        await hub.node.log.sessions.relabel(session.key, changes)
        return await read_state(hub, session.channel)


async def delete_session(hub: Hub, principal: Principal, session_id: str) -> None:
    """Stop the runs of a session, and delete it with all its data.

    Raises UnknownSession, Draining, StorageUnavailable.
    """
    key = hub.make_key(principal, session_id)
    if not await deleting.delete(hub.node, key, may_delete=partial(_may_delete_now, hub, principal)):
        raise make_unknown_session_error(session_id)
    await deleting.purge(hub.node)


async def clear_sessions(
    hub: Hub, principal: Principal, session_ids: Sequence[str] | None = None, before: int | None = None
) -> DeletionCount:
    """Delete the sessions with *session_ids*, or all sessions if it is None. Return their number.

    Sessions that the principal may not delete are left out. With *before* (ms), delete only those whose last message is
    older. Raises Draining, StorageUnavailable.
    """
    if session_ids is None:
        # The time of a session without messages is 0: a call with *before* does not delete it.
        since, until = (0, END_OF_TIME) if before is None else (1, min(before, END_OF_TIME))
        keys = await list_keys(hub, build_session_query(hub, principal, None, since, until))
    else:
        keys = [hub.make_key(principal, session_id) for session_id in dict.fromkeys(session_ids)]
    keys = [key for key in keys if await _may_delete(hub, principal, key)]

    def note_deletion(key: Key) -> None:
        if hub.is_sign_in_on:
            hub.audit.note(principal, "clear_sessions", key)

    count = await deleting.delete_all(hub.node, keys, before, note_deletion, partial(_may_delete_now, hub, principal))
    await deleting.purge(hub.node)
    return DeletionCount(count)


async def _may_delete(hub: Hub, principal: Principal, key: Key) -> bool:
    try:
        check_grants(
            hub, principal, "manage", key, await find_grants(hub, principal, key) if not principal.is_operator else None
        )
    except (Denied, UnknownSession):
        return False
    return True


def _may_delete_now(hub: Hub, principal: Principal, session: LiveSession) -> bool:
    """Check the permission again: meanwhile the session may have been deleted, and made anew by another principal."""
    try:
        check_session(hub, principal, "manage", session)
    except (Denied, UnknownSession):
        return False
    return True


async def list_keys(hub: Hub, query: SessionQuery) -> list[Key]:
    """Return the keys of all sessions that match the query."""
    return [row.key for row in await list_rows(hub, query)]


async def list_rows(hub: Hub, query: SessionQuery) -> list[SessionRow]:
    """Return all sessions that match the query. The log is read in pages of PAGE_SIZE."""
    rows: list[SessionRow] = []
    request: PageRequest | None = PageRequest(PAGE_SIZE)
    while request is not None:
        page = await hub.node.log.sessions.list(query, request)
        rows += page.rows
        request = PageRequest(PAGE_SIZE, page.next_cursor) if page.next_cursor is not None else None
    return rows
