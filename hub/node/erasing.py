"""Erase what a principal wrote in a session that stays: its runs end, and its messages become `[erased]`.

The session gets a new epoch, so clients discard what they have of it. Answers of agents stay.
"""

import asyncio
from functools import partial
from typing import Any

import structlog

from hub.errors import StorageUnavailable
from hub.ids import Key
from hub.messages import Error, InterruptResolved, UserMessage
from hub.node.history import read_reset_messages
from hub.node.node import Node
from hub.sessions import stopping
from hub.sessions.pending import PendingEvent
from hub.sessions.recovery import recover_session
from hub.sessions.session import LiveSession
from hub.storage.records import RunRecord

log = structlog.get_logger()


async def erase_in_session(node: Node, key: Key, principal_id: str) -> None:
    """Erase what a principal, who must not be able to write any more, wrote in a session.

    The erasure goes on when the caller is cancelled; close() of the node waits for it. Raises SessionDeleted, Draining
    and StorageUnavailable: then nothing is erased, but runs of the principal may have ended.
    """
    task = asyncio.create_task(_erase(node, key, principal_id))
    node.erasures.add(task)
    task.add_done_callback(node.erasures.discard)
    await asyncio.shield(task)


async def settle(node: Node, key: Key, principal_id: str) -> None:
    """Wait until the log holds what a principal, who must not be able to write any more, has written in a session.

    Raises SessionDeleted, Draining, StorageUnavailable.
    """
    async with node.loader.use(key) as session, session.admission.pause():
        async with session.outbox.hold(partial(_is_by, principal_id)):
            pass


async def load_runs_of(node: Node, principal_id: str) -> None:
    """Load the unfinished runs of a principal as runs that have ended or are queued, where no hub has recovered them.

    Raises StorageUnavailable.
    """
    records: dict[Key, list[RunRecord]] = {}
    for record in await node.log.runs.list_unfinished_runs():
        if await _has_text_of(node, record, principal_id):
            records.setdefault(record.key, []).append(record)
    for key, own_records in records.items():
        async with node.loader.use(key) as session:
            session.schedule.is_draining = True  # so that no run starts
            await recover_session(session, own_records)
            session.schedule.is_draining = False
            await stopping.end_runs(session.schedule, list(session.queued_runs))


async def _erase(node: Node, key: Key, principal_id: str) -> None:
    while key in node.loader.deletions:  # a deletion may fail, and then there is still something to erase
        await asyncio.wait([node.loader.deletions[key]])
    async with node.loader.use(key) as session:
        async with session.admission.pause():
            runs = [*session.queued_runs, *session.active_runs.values()]
            own_runs = [run for run in runs if await _has_text_of(node, run.record, principal_id)]
            await stopping.end_runs(session.schedule, own_runs)
            async with session.outbox.hold(partial(_is_by, principal_id)):
                result = await node.log.sessions.erase_messages(key, principal_id)
                if result.epoch is not None:
                    await _restart(node, session, result.epoch)
        await node.files.forget_files(key, result.files)
    log.info("the messages of a principal were erased", session=key, principal=principal_id)


async def _restart(node: Node, session: LiveSession, epoch: str) -> None:
    """Give a session in memory its new epoch, and begin its subscriptions anew. Its outbox is held."""
    session.outbox.history_version += 1  # whoever reads the history now reads it again
    messages: tuple[dict[str, Any], ...] = ()
    try:
        messages = await read_reset_messages(node, session.key)
    except StorageUnavailable as error:  # the clients get the reset when they resume
        _disconnect(session, error)
    node.pages.evict_session(session.key)
    node.registry.restart_channel(session.channel, epoch, messages)


def _disconnect(session: LiveSession, error: StorageUnavailable) -> None:
    notice = Error(code=error.code, message=error.message, sessionId=session.id, retryAfterMs=1000)
    for sub in list(session.channel.subscriptions):
        sub.connection.close_after(notice, session.host.limits.close_seconds)


async def _has_text_of(node: Node, run: RunRecord, principal_id: str) -> bool:
    """Return whether a run answers a message of a principal. Another principal may have asked to regenerate it."""
    if run.author.id == principal_id:
        return True
    messages = await node.log.sessions.read_messages_from(run.key, run.userMessageId, 1)
    author = messages[0].author if messages else None
    return author is not None and author.id == principal_id


def _is_by(principal_id: str, event: PendingEvent) -> bool:
    """Return whether an event has a text of a principal."""
    body = event.body
    if isinstance(body, UserMessage):
        return body.author.id == principal_id
    return isinstance(body, InterruptResolved) and body.resolvedBy is not None and body.resolvedBy.id == principal_id
