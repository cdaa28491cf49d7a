"""Single flight for commands with an idempotency key (`clientMsgId`): log a command once, although it is sent again."""

import asyncio
from collections.abc import Awaitable, Callable

import attrs

from hub.errors import IdReused
from hub.ids import Key, id_of
from hub.messages import Accepted, Author, Chat
from hub.sessions.chats import make_accepted
from hub.storage.log import RunStore
from hub.storage.records import ChatRecord


@attrs.define(eq=False)
class SingleFlight:
    """The commands with a clientMsgId that are in admission to one session.

    *tasks* admit these commands, even after their callers were cancelled. *key* is the key of the session.
    """

    key: Key
    store: RunStore
    tasks: set[asyncio.Task[Accepted]] = attrs.Factory(set)
    _end_events: dict[tuple[str, str], asyncio.Event] = attrs.Factory(dict)  # by principal's id and clientMsgId

    async def run_once(
        self, chat: Chat, author: Author, digest: str, admit: Callable[[], Awaitable[Accepted]]
    ) -> Accepted:
        """Call *admit*, unless the log has a command of this author with the same clientMsgId.

        A duplicate waits until the first command is logged or refused. If it was logged, the duplicate gets the same
        ids and seq, with the status `duplicate`; if it was refused, *admit* is called for the duplicate. Raises
        IdReused if the logged command had another *digest*, StorageUnavailable, and every error of *admit*.
        """
        if chat.clientMsgId is None:
            return await admit()
        # A separate task: if the caller is cancelled, a duplicate must still wait for this commit.
        task = asyncio.create_task(self._admit(chat, (author.id, chat.clientMsgId), digest, admit))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return await asyncio.shield(task)

    async def _admit(
        self, chat: Chat, flight_key: tuple[str, str], digest: str, admit: Callable[[], Awaitable[Accepted]]
    ) -> Accepted:
        while (first_end := self._end_events.get(flight_key)) is not None:
            await first_end.wait()
        end_event = self._end_events[flight_key] = asyncio.Event()
        try:
            record = await self.store.find_chat(self.key, *flight_key)
            return await admit() if record is None else self._answer_duplicate(record, digest, chat)
        finally:
            del self._end_events[flight_key]
            end_event.set()

    def _answer_duplicate(self, record: ChatRecord, digest: str, chat: Chat) -> Accepted:
        if record.digest != digest:
            raise IdReused(
                f"clientMsgId {chat.clientMsgId} was used before with another message: give each message its own",
                sessionId=id_of(self.key),
                clientMsgId=chat.clientMsgId,
            )
        return make_accepted(
            chat,
            session_id=id_of(self.key),
            message_id=record.messageId,
            run_id=record.runId,
            seq=record.seq,
            status="duplicate",
        )
