"""Delete a session: end its runs and its subscriptions, then delete its rows in the log and its files.

During the deletion, chats and subscriptions are refused with `session_deleted`. After it, they begin a new session with
the same id.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from sys import maxsize

from hub.errors import LogDamaged, NotRunning, SessionDeleted, StorageUnavailable
from hub.ids import Key
from hub.messages import Error
from hub.node.node import Node
from hub.sessions import stopping
from hub.sessions.session import LiveSession

PARALLEL_DELETIONS = 64


def _may_always(session: LiveSession) -> bool:
    return True


async def delete(
    node: Node, key: Key, before: int | None = None, may_delete: Callable[[LiveSession], bool] = _may_always
) -> bool:
    """Delete a session, and return True. Return False if it does not exist.

    With *before* (ms), return False unless the last message of the session is older. A session without messages is then
    kept, but a damaged session is deleted at any age. Return False also if *may_delete* refuses. Concurrent calls share
    one deletion (single flight), which goes on when a caller is cancelled. Raises Draining, and StorageUnavailable if
    the log cannot be written. After StorageUnavailable the session remains, but its runs may have been stopped.
    """
    node.refuse_if_draining()
    if key not in node.loader.deletions and not _exists_in_memory(node.sessions.get(key)):
        if not await _is_in_log(node, key):
            return False
        node.refuse_if_draining()
    # No await from here to create_task(): each session has at most one deletion.
    shared_task = node.loader.deletions.get(key)
    if shared_task is None:
        node.loader.deletions[key] = asyncio.create_task(_delete(node, key, before, may_delete))
    is_deleted = await asyncio.shield(node.loader.deletions[key])
    if not is_deleted and shared_task is not None:  # the shared deletion may have had another *before*, or *may_delete*
        return await delete(node, key, before, may_delete)
    return is_deleted


async def delete_all(
    node: Node,
    keys: Sequence[Key],
    before: int | None = None,
    on_delete: Callable[[Key], None] = lambda key: None,
    may_delete: Callable[[LiveSession], bool] = _may_always,
) -> int:
    """Delete sessions as delete() does, several at a time. Return the number of deleted sessions.

    *on_delete* is called for each of them. If deletions fail, finish their batch of PARALLEL_DELETIONS, then raise the
    first error.
    """
    count = 0
    for start in range(0, len(keys), PARALLEL_DELETIONS):
        batch = keys[start : start + PARALLEL_DELETIONS]
        results = await asyncio.gather(
            *(delete(node, key, before, may_delete) for key in batch), return_exceptions=True
        )
        for key, result in zip(batch, results, strict=True):
            if result is True:
                on_delete(key)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            count += result
    return count


async def purge(node: Node) -> None:
    """Free the disk space of deleted sessions. If the log cannot be written, the next expire() frees the space."""
    with suppress(StorageUnavailable):
        await node.log.events.purge()


async def _is_in_log(node: Node, key: Key) -> bool:
    """Return whether the log has a session. A session with damaged events counts."""
    try:
        return await node.log.sessions.find(key) is not None
    except LogDamaged:
        return True


def _exists_in_memory(session: LiveSession | None) -> bool:
    """Return whether a session in memory is in the log, or will be. A session with only subscriptions will not be."""
    return session is not None and (session.channel.epoch is not None or not session.is_idle)


async def _delete(node: Node, key: Key, before: int | None, may_delete: Callable[[LiveSession], bool]) -> bool:
    try:
        try:
            session = await node.loader.load(key)
        except LogDamaged:  # a damaged session cannot be in memory
            await node.files.forget_session(key, await node.log.sessions.delete(key))
            return True
        session.use_count += 1  # the session must stay in memory until the deletion ends
        session.admission.is_deleting = True
        try:
            if not may_delete(session) or (before is not None and not await _is_older(session, before)):
                return False
            await _end_runs(session)
            await _wait_for_lagging_subscriptions(session)
            node.registry.close_channel(session.channel, _make_notice(session.id))
            await node.files.forget_session(key, await node.log.sessions.delete(key))
            del node.sessions[key]
            node.pages.evict_session(key)
            return True
        finally:
            # A deleted session still refuses the commands that use it. A session that remains admits chats again.
            session.use_count -= 1
            if node.sessions.get(key) is session:
                session.admission.is_deleting = session.channel.is_deleted = False
    finally:
        del node.loader.deletions[key]
        node.unload_if_unused(key)


async def _is_older(session: LiveSession, before: int) -> bool:
    """Return whether the last message is older than *before* (ms). The caller has stopped the admission of chats."""
    await session.outbox.wait_for_history()
    messages = await session.host.log.sessions.read_last_messages(session.key, 1, max_bytes=maxsize)
    return bool(messages) and messages[0].ts < before


def _make_notice(session: str) -> Error:
    text = f"session {session} was deleted: remove it from the display"
    return Error(code=SessionDeleted.code, message=text, sessionId=session)


async def _end_runs(session: LiveSession) -> None:
    """End the queued runs, then the active ones. Wait until their ends are logged and delivered.

    Raises StorageUnavailable if the wait takes longer than `grace_seconds` and `close_seconds` together.
    """
    with suppress(NotRunning):
        stopping.cancel_runs(session.schedule, None, with_queue=True)
    limits = session.host.limits
    try:
        async with asyncio.timeout(limits.grace_seconds + limits.close_seconds):
            await session.wait_until_idle()
    except TimeoutError:
        raise StorageUnavailable(
            f"session {session.id} cannot be deleted now: the log cannot be written; try again", sessionId=session.id
        ) from None


async def _wait_for_lagging_subscriptions(session: LiveSession) -> None:
    """Wait, at most `close_seconds`, until lagging subscriptions have received the ends of the runs."""
    channel = session.channel
    with suppress(TimeoutError):
        async with asyncio.timeout(session.host.limits.close_seconds):
            while lagging := [
                sub for sub in channel.subscriptions if sub in sub.connection.catchup.lagging_subscriptions
            ]:
                await lagging[0].connection.catchup.wait_for_head(lagging[0])
