"""Commands: the frames that clients send."""

from typing import Annotated, Any, ClassVar

import msgspec

from hub.messages.parts import Parts
from hub.messages.requests import Request
from hub.messages.words import Id, IfBusy, ReplyStatus

MAX_TOKEN_LENGTH = 8192  # characters of a key or a JWT


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that all commands have. The answer to a command, also an error, has the `ref` of the command."""

    type: ClassVar[str]
    example: ClassVar[str]
    ref: str | int | None = None


class Hello(Command, frozen=True, kw_only=True):
    """Switch to the extended protocol, and sign in with `token`; must be the first frame."""

    type = "hello"
    example = '{"type":"hello","client":"my-app/1.0"}'
    client: str | None = None
    token: Annotated[str, msgspec.Meta(max_length=MAX_TOKEN_LENGTH)] | None = None


class Auth(Command, frozen=True, kw_only=True):
    """Sign in with a key or a JWT. On a client that has signed in, renew the credential of the same principal."""

    type = "auth"
    example = '{"type":"auth","token":"hk_..."}'
    token: Annotated[str, msgspec.Meta(max_length=MAX_TOKEN_LENGTH)]


class Chat(Command, frozen=True, kw_only=True):
    """Send a message to an agent."""

    type = "chat"
    example = '{"type":"chat","agentId":"main","sessionId":"s1","message":"hello"}'
    message: str
    agentId: Id | None = None
    sessionId: Id | None = None
    stream: bool | None = None
    clientMsgId: Id | None = None
    ifBusy: IfBusy | None = None
    parts: Parts | None = None
    metadata: dict[str, Any] | None = None


class ChatWithRequest(Chat, frozen=True, kw_only=True):
    """A chat of OpenAI's route or of AG-UI. No frame is decoded to this class: a `chat` frame has no request.

    *callRuns* has the runs of tool calls whose results are in the parts, by their ids, as far as the client knows them.
    """

    request: Request
    callRuns: dict[str, str] = {}


def find_request(chat: Chat) -> Request | None:
    """Return the request of a chat, or None if it has none or an empty one."""
    return chat.request if isinstance(chat, ChatWithRequest) and not chat.request.is_empty else None


class Subscribe(Command, frozen=True, kw_only=True):
    """Subscribe to a session, or to an agent's answers in all sessions. `epoch` and `afterSeq` are a cursor."""

    type = "subscribe"
    example = '{"type":"subscribe","sessionId":"s1"} or {"type":"subscribe","agentId":"main"}'
    sessionId: Id | None = None
    agentId: Id | None = None
    afterSeq: Annotated[int, msgspec.Meta(ge=0)] | None = None
    epoch: Id | None = None
    history: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Unsubscribe(Command, frozen=True, kw_only=True):
    """Unsubscribe from a session or from an agent."""

    type = "unsubscribe"
    example = '{"type":"unsubscribe","sessionId":"s1"} or {"type":"unsubscribe","agentId":"main"}'
    sessionId: Id | None = None
    agentId: Id | None = None


class Cancel(Command, frozen=True, kw_only=True):
    """Stop one run, or all runs of a session. If `queued` is false and there is no `runId`, queued runs stay."""

    type = "cancel"
    example = '{"type":"cancel","sessionId":"s1"}'
    sessionId: Id
    runId: Id | None = None
    queued: bool = True


class Resume(Command, frozen=True, kw_only=True):
    """Answer a question of a run. `interruptId` is the `id` of an `interrupt`; `payload` is any JSON."""

    type = "resume"
    example = '{"type":"resume","sessionId":"s1","interruptId":"i_1","status":"resolved","payload":true}'
    sessionId: Id
    interruptId: Id
    status: ReplyStatus
    payload: Any = None


class Regenerate(Command, frozen=True, kw_only=True):
    """Answer a message again, and remove the messages after it. `messageId` names the message or an answer to it."""

    type = "regenerate"
    example = '{"type":"regenerate","sessionId":"s1","messageId":"m_2"}'
    sessionId: Id
    messageId: Id
    clientMsgId: Id | None = None
    agentId: Id | None = None


class Edit(Command, frozen=True, kw_only=True):
    """Replace a message with a new one, and remove the messages after it."""

    type = "edit"
    example = '{"type":"edit","sessionId":"s1","messageId":"m_1","message":"hello"}'
    sessionId: Id
    messageId: Id
    message: str
    clientMsgId: Id | None = None
    agentId: Id | None = None
    parts: Parts | None = None
    metadata: dict[str, Any] | None = None


class Fork(Command, frozen=True, kw_only=True):
    """Create a session with the history of another one, up to and including a message."""

    type = "fork"
    example = '{"type":"fork","sessionId":"s1","messageId":"m_2"}'
    sessionId: Id
    messageId: Id
    newSessionId: Id | None = None


class Typing(Command, frozen=True, kw_only=True):
    """Show other clients of a session that the sender is typing. Nothing is logged, and the only answer is an error."""

    type = "typing"
    example = '{"type":"typing","sessionId":"s1"}'
    sessionId: Id


class Ping(Command, frozen=True, kw_only=True):
    """Request a `pong`."""

    type = "ping"
    example = '{"type":"ping"}'


COMMANDS: dict[str, type[Command]] = {
    kind.type: kind
    for kind in (Hello, Auth, Chat, Subscribe, Unsubscribe, Cancel, Resume, Regenerate, Edit, Fork, Typing, Ping)
}
