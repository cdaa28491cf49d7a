"""Retention: delete old events, messages and files, and the sessions that are empty then.

Subscribers get no notice of it. A client whose cursor is before the retention floor gets a `reset` when it resumes.
"""

import attrs
import structlog

from hub.days import DAY_MS
from hub.errors import HubError
from hub.ids import Key
from hub.node import deleting
from hub.node.node import Node
from hub.sessions.session import LiveSession
from hub.storage.records import FileRecord, Head

log = structlog.get_logger()


@attrs.define
class _ExpiredData:
    """What a pass of retention deleted: events and messages by the number of their sessions; files; whole sessions."""

    sessions_with_events: int = 0
    sessions_with_messages: int = 0
    files: int = 0
    sessions: int = 0


async def expire_old_data(node: Node) -> None:
    """Delete what is older or more than the settings of retention allow. Log one line if something was deleted."""
    expired_data = _ExpiredData()
    try:
        await _expire(node, expired_data)
    finally:
        if expired_data != _ExpiredData():
            log.info("retention has deleted old data", **attrs.asdict(expired_data))


async def _expire(node: Node, expired_data: _ExpiredData) -> None:
    settings, now = node.settings, node.seams.now()
    # The events of a message contain its text, so they do not stay longer than the message.
    days = [settings.retention_days, *([settings.message_days] if settings.message_days else [])]
    expired_data.sessions_with_events = await expire_events(node, int(now - min(days) * DAY_MS))
    if settings.file_days:
        expired_data.files = await expire_files(node, int(now - settings.file_days * DAY_MS))
    if settings.message_days or settings.message_mb:
        before = int(now - settings.message_days * DAY_MS) if settings.message_days else 0
        expired_data.sessions_with_messages, expired_data.sessions = await expire_messages(node, before)


async def expire_events(node: Node, before: int) -> int:
    """Drop the events older than *before* (ms), then the oldest events until the log has only `retention_mb`.

    Set the new retention floors of the sessions in memory. Return the number of sessions that lost events.
    """
    sessions = node.sessions.copy()
    floors = await node.log.events.expire(before, node.settings.retention_mb << 20)
    for key, floor in floors.items():
        session = node.sessions.get(key)
        # A session that was loaded during expire() keeps its floor, because it may be a new session with the same id.
        # If it is the old session, the catch-up of its subscriptions finds the new floor.
        if session is not None and session is sessions.get(key):
            session.channel.floor = floor
    return len(floors)


async def expire_messages(node: Node, before: int) -> tuple[int, int]:
    """Delete the messages older than *before* (ms), then the oldest until all have only `message_mb`.

    Then delete the sessions that have no message and no file any more, if nothing was written to them for as long.
    Return the number of sessions that lost messages, and of deleted sessions.
    """
    max_bytes = node.settings.message_mb << 20
    expiry = await node.log.sessions.expire_messages(before, max_bytes or None)
    for key in expiry.keys:
        session = node.sessions.get(key)
        if session is not None:
            session.outbox.history_version += 1  # whoever reads the history now reads it again
    deleted_count = 0
    for head in await node.log.sessions.list_idle_sessions(expiry.before):
        if not node.is_draining:
            deleted_count += await _delete_idle_session(node, head)
    return len(expiry.keys), deleted_count


async def expire_files(node: Node, before: int) -> int:
    """Delete the files older than *before* (ms) that no message of their session names. Return their number."""
    count = 0
    after: str | None = ""
    while after is not None:
        records, after = await node.log.files.expire_files(before, after)
        by_key: dict[Key, list[FileRecord]] = {}
        for record in records:
            by_key.setdefault(record.key, []).append(record)
        for key, session_records in by_key.items():
            await node.files.forget_files(key, session_records)
        count += len(records)
    return count


async def _delete_idle_session(node: Node, head: Head) -> bool:
    """Delete a session, and return True, unless somebody uses it or has written to it since *head* was read."""

    def is_idle(session: LiveSession) -> bool:
        channel = session.channel
        has_users = bool(channel.subscriptions) or session.use_count > 1  # the deletion is one user
        is_same = (channel.epoch, channel.head) == (head.epoch, head.seq)
        return session.is_idle and is_same and not has_users and not node.files.quota.count_of(head.key)

    if head.key in node.sessions:
        return False
    try:
        return await deleting.delete(node, head.key, may_delete=is_idle)
    except HubError as error:
        log.warning("an empty session was not deleted; it is tried again later", session=head.key, reason=error.message)
        return False
