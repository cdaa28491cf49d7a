"""The chats that the hub has not accepted yet. They are sent again after each reconnect."""

from collections.abc import Callable

import attrs

from hub.client.answer import Answer
from hub.client.commands import Commands
from hub.client.failures import Failure, Refusal, refusal_of
from hub.client.link import Link
from hub.messages import Accepted, Error, Notice

MAX_OPEN_CHATS = 100  # of one session; client_js/session.js has the same limit


@attrs.define(eq=False, kw_only=True)
class Chats:
    """The chats of a client, in the order of the calls. *on_accept* is called before a chat's answer is accepted.

    The chats of one session are sent in this order: a chat whose files are still being uploaded holds back later ones.
    """

    link: Link
    commands: Commands
    on_accept: Callable[[Accepted], None]
    _open: dict[int, Answer] = attrs.Factory(dict)  # by ref
    _sent_refs: set[int] = attrs.Factory(set)  # of the chats that were sent over the present connection

    def add(self, answer: Answer) -> None:
        """Send a chat as soon as it is ready and there is a connection. Fails the answer if too many chats are open."""
        count = sum(chat.session_id == answer.session_id for chat in self._open.values())
        if count >= MAX_OPEN_CHATS:
            text = f"{MAX_OPEN_CHATS} chats of this session are not accepted yet: wait until the hub accepts one"
            answer.fail(Refusal("busy", text, retryable=True))
            return
        ref = self.commands.next_ref()
        answer.frame["ref"] = ref
        self._open[ref] = answer
        self.send_ready(answer.session_id)

    def send_ready(self, session_id: str) -> None:
        """Send the chats of a session that are ready, up to the first one that is not."""
        for ref, answer in list(self._open.items()):
            if answer.session_id != session_id or ref in self._sent_refs:
                continue
            if answer.has_failed:
                del self._open[ref]
            elif not answer.is_ready or self.link.state != "live":
                return
            else:
                self._send(ref, answer)

    def _send(self, ref: int, answer: Answer) -> None:
        try:
            self.link.refuse_if_full()
            self.link.send(**answer.frame)
            self._sent_refs.add(ref)
        except Refusal as refusal:
            del self._open[ref]
            answer.fail(refusal)

    def send_all(self) -> None:
        """Send all chats that are ready, over a new connection."""
        for session_id in dict.fromkeys(answer.session_id for answer in self._open.values()):
            self.send_ready(session_id)

    def receive(self, ref: object, reply: Notice) -> bool:
        """Pass a reply to its chat. Return whether *ref* is of a chat."""
        if not isinstance(ref, int) or ref not in self._open:
            return False
        if isinstance(reply, Error) and reply.code == "draining":
            self.link.retry_after = (reply.retryAfterMs or 0) / 1000
            return True  # the hub will close the connection: the chat is sent again over the next one
        answer = self._open.pop(ref)
        self._sent_refs.discard(ref)
        if isinstance(reply, Accepted):
            self.link.has_progress = True
            self.on_accept(reply)
            answer.accept(reply)
        elif isinstance(reply, Error):
            answer.fail(refusal_of(reply))
        return True

    def drop(self, answer: Answer) -> None:
        """Do not send a chat again."""
        self._open = {ref: chat for ref, chat in self._open.items() if chat is not answer}

    def disconnect(self) -> None:
        self._sent_refs.clear()

    def fail(self, error: Failure) -> None:
        """Fail all chats: the client is closed."""
        for answer in self._open.values():
            answer.fail(error)
        self._open.clear()
