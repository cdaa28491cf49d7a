"""Make, name and delete sessions."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from hub.access.principal import Principal
from hub.commands.history import FAR, readable, state_of, unknown_session
from hub.commands.hub import Hub
from hub.errors import BadFrame, TooLarge
from hub.ids import Key
from hub.limits import size_text
from hub.messages import DeletionCount, PageRequest, SessionState
from hub.node import deleting
from hub.storage.records import SessionQuery

SLICE = 500  # sessions that are looked up at a time


async def create_session(hub: Hub, principal: Principal, session_id: str | None = None) -> tuple[SessionState, bool]:
    """Make a session, under an id of the hub's where none is given; return it, and whether it is new."""
    key = hub.key(principal, session_id or hub.node.seams.new_id("s"))
    async with hub.node.use(key) as session:
        is_new = await hub.node.create(session)
        return await state_of(hub, session.channel), is_new


async def relabel(hub: Hub, principal: Principal, session_id: str, changes: Mapping[str, Any]) -> SessionState:
    """Replace those of `title` and `metadata` that *changes* has, in a session that is made where it does not exist.

    Raises UnknownSession where that is so and nothing is to be kept, BadFrame, TooLarge, SessionDeleted.
    """
    limits, title, metadata = hub.limits, changes.get("title"), changes.get("metadata")
    if title is not None and len(title) > limits.title_length:
        raise BadFrame(f"the title of a session has at most {limits.title_length} characters: choose a shorter one")
    if metadata and len(orjson.dumps(metadata)) > limits.metadata_bytes:
        most = size_text(limits.metadata_bytes)
        raise TooLarge(f"the metadata of a session is at most {most} of JSON: keep the rest elsewhere")
    async with hub.node.use(hub.key(principal, session_id)) as session:
        if any(value is not None for value in changes.values()):
            await hub.node.create(session)
        await hub.node.log.sessions.relabel(session.key, changes)
        return await state_of(hub, session.channel)


async def delete_session(hub: Hub, principal: Principal, session_id: str) -> None:
    """Delete a session: what goes on in it ends, and nothing of it is left. Raises UnknownSession, Draining."""
    if not await deleting.delete(hub.node, hub.key(principal, session_id)):
        raise unknown_session(session_id)
    await deleting.purge(hub.node)


async def clear_sessions(
    hub: Hub, principal: Principal, session_ids: Sequence[str] | None = None, before: int | None = None
) -> DeletionCount:
    """Delete sessions by their ids, or, without ids, those whose last message is older than *before* (ms); else all."""
    if session_ids is None:
        # A session without any message was last written in at no time: only a call without *before* takes it.
        since, until = (0, FAR) if before is None else (1, min(before, FAR))
        keys = await _keys(hub, readable(principal, None, since, until))
    else:
        keys = [hub.key(principal, session_id) for session_id in dict.fromkeys(session_ids)]
    count = await deleting.delete_all(hub.node, keys, before)
    await deleting.purge(hub.node)
    return DeletionCount(count)


async def _keys(hub: Hub, query: SessionQuery) -> list[Key]:
    """Return the keys of all sessions of a list, which is read slice by slice."""
    keys: list[Key] = []
    request: PageRequest | None = PageRequest(SLICE)
    while request is not None:
        page = await hub.node.log.sessions.list(query, request)
        keys += [row.key for row in page.rows]
        request = PageRequest(SLICE, page.next_cursor) if page.next_cursor is not None else None
    return keys
