"""Commands with a clientMsgId: each is kept once, however often it is sent."""

import asyncio
from collections.abc import Awaitable, Callable

import attrs

from hub.errors import IdReused
from hub.ids import Key, id_of
from hub.messages import Accepted, Author, Chat
from hub.sessions.chats import accepted
from hub.storage.log import RunStore
from hub.storage.records import ChatRecord


@attrs.define(eq=False)
class Once:
    """What is *coming* into one session under an id of its own: by principal and clientMsgId, until it is settled."""

    key: Key
    store: RunStore
    coming: set[asyncio.Task[Accepted]] = attrs.Factory(set)
    _settled: dict[tuple[str, str], asyncio.Event] = attrs.Factory(dict)

    async def keep(self, chat: Chat, author: Author, said: str, admit: Callable[[], Awaitable[Accepted]]) -> Accepted:
        """Let *admit* keep what its clientMsgId names once; *said* is its digest.

        A duplicate waits for the first one's commit and gets the same answer. Raises IdReused, and what *admit* does.
        """
        if chat.clientMsgId is None:
            return await admit()
        # In a task of its own: where the one who asks is cancelled, no duplicate may come between text and commit.
        task = asyncio.create_task(self._keep(chat, (author.id, chat.clientMsgId), said, admit))
        self.coming.add(task)
        task.add_done_callback(self.coming.discard)
        return await asyncio.shield(task)

    async def _keep(
        self, chat: Chat, key: tuple[str, str], said: str, admit: Callable[[], Awaitable[Accepted]]
    ) -> Accepted:
        while (first := self._settled.get(key)) is not None:
            await first.wait()
        settled = self._settled[key] = asyncio.Event()
        try:
            kept = await self.store.find_chat(self.key, *key)
            return await admit() if kept is None else self._again(kept, said, chat)
        finally:
            del self._settled[key]
            settled.set()

    def _again(self, kept: ChatRecord, said: str, chat: Chat) -> Accepted:
        if kept.digest != said:
            raise IdReused(
                f"clientMsgId {chat.clientMsgId} was used before with another message: give each message its own",
                sessionId=id_of(self.key),
                clientMsgId=chat.clientMsgId,
            )
        return accepted(chat, (id_of(self.key), kept.messageId, kept.runId), kept.seq, "duplicate")
