"""A session, as a program uses it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import attrs
import msgspec

from hub.client.answer import Answer
from hub.client.commands import request_cancel
from hub.client.failures import Closed
from hub.client.feed import Feed
from hub.client.files import FileContent
from hub.client.reader import Reader
from hub.client.replies import QuestionHandler, Replies
from hub.messages import IfBusy, ReplyStatus, StoredFile

if TYPE_CHECKING:
    from hub.client.client import Client


def has_tool_result(parts: Sequence[Any] | None) -> bool:
    return any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts or ())


@attrs.define(eq=False, kw_only=True)
class Session:
    """A session to which the client stays subscribed, over every reconnect, until leave().

    Several Session objects of one id share one subscription. Each has its own agent, its own readers and answers.
    """

    id: str
    agent: str
    _client: "Client"
    _readers: WeakSet[Reader] = attrs.Factory(WeakSet)
    _answers: WeakSet[Answer] = attrs.Factory(WeakSet)

    def open(self) -> Feed:
        """Subscribe to the session, unless the client is subscribed to it. leave() ends this."""
        feed = self._client.feeds.open(self.id)
        feed.handles.add(self)
        return feed

    def chat(
        self,
        message: str,
        *,
        agent: str | None = None,
        if_busy: IfBusy | None = None,
        client_msg_id: str | None = None,
        parts: Sequence[Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        files: Sequence[FileContent | StoredFile] = (),
    ) -> Answer:
        """Send a message, now or at the next connection, and return its answer.

        *client_msg_id* is the idempotency key: the hub answers repeated messages with the same key once. By default the
        key is random. *parts* are dictionaries, or objects of hub.messages.parts. *files* are uploaded first, and named
        in further parts. Results of tool calls go to the agent of the calls, unless *agent* is another one.

        The message is sent even if the answer is never awaited. Raises Closed, OSError for a path
        that does not exist, and TypeError or ValueError for what JSON does not have.
        """
        json_parts = None if parts is None else msgspec.to_builtins(list(parts))
        fields: dict[str, Any] = {
            "message": message,
            "agentId": agent or (None if has_tool_result(json_parts) else self.agent),
            "clientMsgId": client_msg_id,
            "ifBusy": if_busy,
            "parts": json_parts,
            "metadata": metadata,
        }
        frame = {name: value for name, value in fields.items() if value is not None}
        answer = self._client.send_chat(self, frame, files)
        self._answers.add(answer)
        return answer

    async def ask(self, message: str, *, on_question: QuestionHandler | None = None, **options: Any) -> str:
        """Return the complete answer to *message*: see Answer.text. The other options are those of `chat`.

        *on_question* is called with each question of the agent, an Interrupt. What it returns, or awaits and returns,
        is the reply, unless another client has replied before. An error that it raises is raised here, and the question
        stays open. Without *on_question*, the call waits until another client replies.
        """
        answer = self.chat(message, **options)
        if on_question is None:
            return await answer.text()
        replies = Replies(on_question, self.resume, answer.fail)
        try:
            return await answer.read_text(replies.note)
        finally:
            await replies.close()

    async def resume(self, interrupt_id: str, payload: Any = None, *, status: ReplyStatus = "resolved") -> None:
        """Answer the question *interrupt_id* of an agent, the `id` of an Interrupt. *payload* is any JSON.

        The status `cancelled` declines the question. Raises the errors of Client.command().
        """
        fields = {"sessionId": self.id, "interruptId": interrupt_id, "status": status}
        await self._client.command(type="resume", **fields, **({} if payload is None else {"payload": payload}))

    async def cancel(self) -> tuple[str, ...]:
        """Stop all running and queued answers of the session. Return the ids of their runs.

        Raises the errors of Client.command().
        """
        return await request_cancel(self._client.commands, self.id, None)

    async def history(self, last: int = 100) -> tuple[dict[str, Any], ...]:
        """Return the last *last* finished messages, oldest first, within the hub's limits (by default 100 and 1 MiB).

        Raises the errors of Client.command().
        """
        return await self._client.history(self.id, last)

    def events(self) -> Reader:
        """Return a reader of all further events of the session: see Client.subscribe."""
        self.open()
        reader = self._client.subscribe(session=self.id)
        self._readers.add(reader)
        return reader

    def typing(self) -> None:
        """Tell the session's other clients that someone is writing."""
        self._client.link.send(type="typing", sessionId=self.id)

    # --- files ------------------------------------------------------------------------------------------------------

    async def upload(self, data: FileContent, *, name: str | None = None, type: str | None = None) -> StoredFile:
        """Upload bytes, or the file at a path, and return the stored file. Cancel the call to abort the upload.

        By default the *name* is that of the path, and the media *type* follows from the name. The upload makes the
        session if it does not exist. Raises Refusal, ConnectionCut, and OSError for a path that cannot be read.
        """
        return await self._client.files.upload(self.id, data, name, type)

    async def list_files(self) -> tuple[StoredFile, ...]:
        """Return the files of the session, in the order of their uploads. Raises Refusal, ConnectionCut."""
        return await self._client.files.list(self.id)

    async def read_file(self, file_id: str) -> bytes:
        """Return the bytes of a file. Raises Refusal, ConnectionCut."""
        return await self._client.files.read(file_id)

    async def delete_file(self, file_id: str) -> None:
        """Delete a file. Messages that name it stay. Raises Refusal, ConnectionCut."""
        await self._client.files.delete(file_id)

    # --- end --------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """End the readers and the answers of this object. The last object of a session also unsubscribes from it.

        Open answers raise Closed. The object subscribes again when it is used again. By default, a connection may have
        128 subscriptions.
        """
        error = Closed("closed", f"the program has left session {self.id}: open it again")
        for answer in list(self._answers):
            self._client.chats.drop(answer)
            answer.abandon(error)
        self._client.chats.send_ready(self.id)  # chats of other objects may have waited for an upload of this one
        for reader in list(self._readers):
            reader.end()
        self._client.feeds.leave(self)
