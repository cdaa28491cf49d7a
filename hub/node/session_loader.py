"""The sessions in memory: load them from the log, create them in the log, and unload unused ones."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from hub.delivery.channel import Channel
from hub.errors import SessionDeleted
from hub.ids import Key, id_of
from hub.sessions.hosts import SessionHost
from hub.sessions.session import LiveSession
from hub.storage.access_store import AccessStore
from hub.storage.log import SessionStore


@attrs.define(eq=False, repr=False, kw_only=True)
class SessionLoader:
    """Loads and unloads sessions.

    *sessions* are the sessions in memory. *deletions* are the tasks that delete sessions (see hub.node.deleting).
    *access* is None while sign-in is off: then no grants are loaded.
    """

    host: SessionHost
    store: SessionStore
    access: AccessStore | None = None
    sessions: dict[Key, LiveSession] = attrs.Factory(dict)
    deletions: dict[Key, asyncio.Task[bool]] = attrs.Factory(dict)
    _is_draining: bool = False
    _loads: dict[Key, asyncio.Task[LiveSession]] = attrs.Factory(dict)

    @asynccontextmanager
    async def use(self, key: Key) -> AsyncIterator[LiveSession]:
        """Load a session, and do not unload it within the context. The session need not be in the log.

        Raises the errors of load(), and SessionDeleted if the session is being deleted.
        """
        if key in self.deletions:
            raise SessionDeleted(id_of(key))
        session = await self.load(key)
        session.use_count += 1
        try:
            yield session
        finally:
            session.use_count -= 1
            self.unload_if_unused(key)

    async def load(self, key: Key) -> LiveSession:
        """Return a session, loaded if needed. Concurrent calls share one load.

        The session may be unloaded at the caller's next await: use() prevents this. Raises StorageUnavailable, or its
        subclass LogDamaged.
        """
        while (session := self.sessions.get(key)) is None:
            task = self._loads.get(key)
            if task is None:
                task = self._loads[key] = asyncio.create_task(self._load_session(key))
            await asyncio.wait([task])  # `await task` would cancel the load if this caller is cancelled
            task.result()  # raises the error of the load
        return session

    async def create(self, session: LiveSession) -> bool:
        """Create a session in the log unless it exists. Return True if it is new. Call this in the context of use().

        Raises StorageUnavailable, and SessionDeleted if the session is being deleted, or was deleted while the caller
        used it.
        """
        # No await between this check and the call of the log: a deletion in between would end first, and the call would
        # then create a new session.
        if session.admission.is_deleting:
            raise SessionDeleted(session.id)
        head, is_new = await self.store.make(session.key, session.outbox.owner)
        session.channel.epoch = session.channel.epoch or head.epoch
        return is_new

    def unload_if_unused(self, key: Key) -> None:
        """Remove a session from memory if nothing needs it."""
        session = self.sessions.get(key)
        if session is not None and session.is_unused():
            del self.sessions[key]

    def drain(self) -> None:
        """Refuse chats in all sessions, also in sessions that are loaded later."""
        self._is_draining = True
        for session in self.sessions.values():
            session.schedule.is_draining = True

    async def _load_session(self, key: Key) -> LiveSession:
        try:
            head = await self.store.find(key)
            grants = await self.access.find_grants(key) if self.access is not None and head is not None else None
            channel = Channel(key=key)
            if head is not None:
                channel = Channel(key=key, epoch=head.epoch, head=head.seq, floor=head.floor)
            session = LiveSession(channel=channel, host=self.host, grants=dict(grants or {}))
            session.schedule.is_draining = self._is_draining
            self.sessions[key] = session
            # The tasks that wait for this load run before anything can unload the session.
            return session
        finally:
            del self._loads[key]
