"""The end of a session: its runs, its listeners, what is kept of it, and its files, in this order.

While it goes on nobody comes in: a chat or a subscription is refused with `session_deleted`, and begins a new session
under the id when it has ended.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from sys import maxsize

from hub.errors import LogDamaged, NotRunning, SessionDeleted, StorageUnavailable
from hub.ids import Key
from hub.messages import Error
from hub.node.node import Node
from hub.sessions import stopping
from hub.sessions.session import LiveSession

TOGETHER = 64  # sessions that are deleted at a time


async def delete(node: Node, key: Key, before: int | None = None) -> bool:
    """Delete a session; return False where there is none, or its last message is not from before *before* (ms).

    Concurrent calls share one deletion (single flight), which goes on when a caller is cancelled. Raises Draining, and
    StorageUnavailable where the log cannot be written; then the session stays, without its runs and its listeners.
    """
    node.refuse_if_draining()
    if key not in node.deletions and not _is_there(node.sessions.get(key)):
        if not await _is_kept(node, key):
            return False
        node.refuse_if_draining()
    # No await since the last look: one deletion at a time for each session.
    shared = node.deletions.get(key)
    if shared is None:
        node.deletions[key] = asyncio.create_task(_delete(node, key, before))
    gone = await asyncio.shield(node.deletions[key])
    return gone or (
        shared is not None and await delete(node, key, before)
    )  # the shared deletion may have had another *before*


async def clear(node: Node, keys: Sequence[Key], before: int | None = None) -> int:
    """Delete these sessions as delete() does, some at a time; return how many went. Raises as it does, at the first."""
    deleted = 0
    for start in range(0, len(keys), TOGETHER):
        some = keys[start : start + TOGETHER]
        results = await asyncio.gather(*(delete(node, one, before) for one in some), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            deleted += result
    return deleted


async def purge(node: Node) -> None:
    """Give back what deleted sessions took; where that fails it goes with the next retention."""
    with suppress(StorageUnavailable):
        await node.log.events.purge()


async def _is_kept(node: Node, key: Key) -> bool:
    """Say whether the log has a session, also one whose latest events are damaged."""
    try:
        return await node.log.sessions.find(key) is not None
    except LogDamaged:
        return True


def _is_there(session: LiveSession | None) -> bool:
    """Say whether a session exists, or is about to; one that is only listened to does not."""
    return session is not None and (session.channel.epoch is not None or not session.is_idle)


async def _delete(node: Node, key: Key, before: int | None) -> bool:
    try:
        try:
            session = await node.there(key)
        except LogDamaged:  # nobody can be in it
            await node.files.forget(key, await node.log.sessions.delete(key))
            return True
        session.use_count += 1  # it stays in memory until all is done
        session.admission.is_deleting = True
        try:
            if before is not None and not await _is_older(session, before):
                return False
            await _end(session)
            await _let_hear(session)
            node.registry.close_channel(session.channel, _notice(session.id))
            await node.files.forget(key, await node.log.sessions.delete(key))
            del node.sessions[key]
            node.pages.forget(key)
            return True
        finally:
            # Whoever holds it still has the old one, which takes nothing any more, unless it stays.
            session.use_count -= 1
            if node.sessions.get(key) is session:
                session.admission.is_deleting = session.channel.is_deleted = False
    finally:
        del node.deletions[key]
        node.unload_if_unused(key)


async def _is_older(session: LiveSession, before: int) -> bool:
    """Tell whether the last message is from before *before*; no other comes in any more."""
    await session.outbox.wait_for_history()
    last = await session.host.log.sessions.read_last_messages(session.key, 1, max_bytes=maxsize)
    return bool(last) and last[0].ts < before


def _notice(session: str) -> Error:
    text = f"session {session} was deleted: forget what was shown of it"
    return Error(code=SessionDeleted.code, message=text, sessionId=session)


async def _end(session: LiveSession) -> None:
    """End what waits, then what runs; wait until each end is in the log and handed to the listeners."""
    with suppress(NotRunning):
        stopping.cancel_runs(session.schedule, None, queued=True)
    limits = session.host.limits
    try:
        async with asyncio.timeout(limits.grace_seconds + limits.close_seconds):
            await session.wait_until_idle()
    except TimeoutError:
        raise StorageUnavailable(
            f"session {session.id} cannot be deleted now: the log takes nothing; try again", sessionId=session.id
        ) from None


async def _let_hear(session: LiveSession) -> None:
    """Let those who are a little behind hear the ends; who does not read goes without."""
    channel = session.channel
    with suppress(TimeoutError):
        async with asyncio.timeout(session.host.limits.close_seconds):
            while late := [sub for sub in channel.subscriptions if sub in sub.connection.catchup.lagging]:
                await late[0].connection.catchup.wait_for_head(late[0])
