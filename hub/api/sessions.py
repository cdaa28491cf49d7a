"""Sessions over HTTP: what was said, what is being said, and chats."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ClassVar, cast

import attrs
import msgspec
import orjson
from aiohttp import web
from msgspec import UNSET, UnsetType

from hub.api import bodies
from hub.auth import principal
from hub.clients import NODE
from hub.connection import Connection
from hub.deleting import clear, delete, purge
from hub.dispatch import join, stop
from hub.errors import BadFrame, BadId, BadQuery, TooLarge, UnknownSession
from hub.logs import Head
from hub.messages import Accepted, Cancel, Chat, Chunk, Event, Id, RunError, RunFinished, WholeMessage
from hub.node import Node
from hub.protocols.extended import event_fields, notice_fields
from hub.protocols.reading import ID, LIMITS, convert
from hub.registry import Channel
from hub.session import Session, new_id
from hub.sse import last_event, stream, wants_stream

MOST = 100  # sessions or messages on one page
FAR = 10**15 - 1
CHAT = '{"agentId":"main","message":"hello"}'
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _session_id(request: web.Request) -> str:
    session_id = request.match_info["id"]
    if not ID.fullmatch(session_id):
        raise BadId("the session is no id: 1 to 128 of A-Z a-z 0-9 . _ : @ -")
    return session_id


async def _head(request: web.Request) -> Head:
    session_id = _session_id(request)
    head = await request.app[NODE].log.find(session_id)
    if head is None:
        raise _unknown(session_id)
    return head


def _unknown(session_id: str) -> UnknownSession:
    return UnknownSession(f"there is no session {session_id}: a chat makes it", sessionId=session_id)


def _number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    given = request.query.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) <= 15 and least <= int(given) <= most):
        raise BadQuery(f"?{name}= is no number from {least} to {most}")
    return int(given)


class Label(msgspec.Struct):
    """What to call a session from now on; what is left out stays."""

    example: ClassVar[str] = '{"title":"Plans","metadata":{"colour":"green"}}'
    title: Annotated[str, msgspec.Meta(max_length=200)] | None | UnsetType = UNSET
    metadata: dict[str, Any] | None | UnsetType = UNSET


class Cleared(msgspec.Struct):
    """Which sessions to delete, in one of three ways."""

    example: ClassVar[str] = '{"sessionIds":["s1"]} or {"before":1795433910819} or {"all":true}'
    sessionIds: list[Id] | None = None
    before: Annotated[int, msgspec.Meta(ge=0)] | None = None
    all: bool | None = None


async def listed(request: web.Request) -> web.Response:
    """The newest first; by agent and by the time of the last message, where asked."""
    page, size = _number(request, "page", 1, 1, 10**9), _number(request, "size", 20, 1, MOST)
    since, until = _number(request, "since", 0, 0, FAR), _number(request, "until", FAR, 0, FAR)
    log = request.app[NODE].log
    total, found = await log.sessions((page - 1) * size, size, request.query.get("agentId"), since, until)
    return web.json_response({"data": [attrs.asdict(one) for one in found], "total": total, "page": page, "size": size})


async def made(request: web.Request) -> web.Response:
    """Make a session, under the id that the body names or one of its own; one that is there stays as it is."""
    session_id = (await bodies.fields(request, '{"sessionId":"s1"}')).get("sessionId", new_id("s"))
    if not isinstance(session_id, str) or not ID.fullmatch(session_id):
        raise BadId("sessionId is no id: 1 to 128 of A-Z a-z 0-9 . _ : @ -")
    node = request.app[NODE]
    node.refuse_if_draining()
    was = await node.log.find(session_id)
    async with node.use(session_id) as session:
        return web.json_response(await _shown(node, session.channel), status=201 if was is None else 200)


async def shown(request: web.Request) -> web.Response:
    """Where a session stands, and what it is doing."""
    head, node = await _head(request), request.app[NODE]
    return web.json_response(await _shown(node, head))


async def labelled(request: web.Request) -> web.Response:
    """Replace the title, the metadata, or both."""
    node, given = request.app[NODE], await bodies.read(request, Label)
    changes = {name: value for name, value in msgspec.structs.asdict(given).items() if value is not UNSET}
    if not changes:
        raise BadFrame(f"neither title nor metadata is given; send for example {Label.example}")
    if given.metadata and len(orjson.dumps(given.metadata)) > node.settings.limits.metadata_bytes:
        most = node.settings.limits.metadata_bytes >> 10
        raise TooLarge(f"the metadata of a session is at most {most} KiB of JSON: keep the rest elsewhere")
    head = await _head(request)
    await node.log.relabel(head.sessionId, changes)
    return web.json_response(await _shown(node, await _head(request)))


async def deleted(request: web.Request) -> web.Response:
    """End what goes on in a session, and let nothing of it be left."""
    node, session_id = request.app[NODE], _session_id(request)
    if not await delete(node, session_id):
        raise _unknown(session_id)
    await purge(node)
    return web.Response(status=204)


async def cleared(request: web.Request) -> web.Response:
    """Delete many: those that are named, those that nobody wrote in since a time, or all."""
    node, chosen = request.app[NODE], await bodies.read(request, Cleared)
    ways = [way for way in (chosen.sessionIds, chosen.before, chosen.all) if way is not None]
    if len(ways) != 1 or chosen.all is False:
        raise BadFrame(f"choose in one way; send for example {Cleared.example}")
    node.refuse_if_draining()
    names = chosen.sessionIds
    if names is None:
        # A session without any message was last written in at no time: only `all` takes it.
        since, until = (0, FAR) if chosen.all else (1, min(chosen.before or 0, FAR))
        names = [one.sessionId for one in (await node.log.sessions(0, FAR, None, since, until))[1]]
    count = await clear(node, list(dict.fromkeys(names)))
    await purge(node)
    return web.json_response({"deleted": count})


async def _shown(node: Node, head: Head | Channel) -> dict[str, Any]:
    session_id = head.sessionId if isinstance(head, Head) else head.id
    label = await node.log.label(session_id)
    if label is None:
        raise _unknown(session_id)
    session = node.sessions.get(session_id)
    seq = head.seq if isinstance(head, Head) else head.head
    state = notice_fields(session.state()) if session is not None else {"state": "idle", "active": [], "queue": []}
    return {
        "sessionId": session_id,
        "title": label.title,
        "metadata": label.metadata,
        "epoch": head.epoch,
        "seq": seq,
        "floor": head.floor,
        "state": state["state"],
        "active": state["active"],
        "queue": state["queue"],
    }


async def messages(request: web.Request) -> web.Response:
    """Page 1 is the oldest."""
    head = await _head(request)
    page, size = _number(request, "page", 1, 1, 10**9), _number(request, "size", 20, 1, MOST)
    total, found = await request.app[NODE].log.history(head.sessionId, (page - 1) * size, size)
    data = [attrs.asdict(message, filter=lambda _, value: value is not None) for message in found]
    return web.json_response({"data": data, "total": total, "page": page, "size": size})


async def events(request: web.Request) -> web.StreamResponse:
    """The log: a page of it after `afterSeq`, or from a cursor on as a stream."""
    node = request.app[NODE]
    if not wants_stream(request):
        head = await _head(request)
        after = _number(request, "afterSeq", 0, 0, FAR)
        found = await node.log.read(head.sessionId, max(after, head.floor), head.seq)
        return web.json_response(
            {
                "data": [event_fields(event) for event in found],
                "epoch": head.epoch,
                "seq": head.seq,
                "floor": head.floor,
            }
        )
    session_id, last = _session_id(request), last_event(request)
    epoch, cursor = last if last is not None else (None, None)
    if cursor is None and "afterSeq" in request.query:
        cursor = _number(request, "afterSeq", 0, 0, FAR)

    async def begin(connection: Connection) -> None:
        async with node.use(session_id) as session:
            await join(node, connection, session, cursor, epoch)

    return await stream(request, begin)


async def chat(request: web.Request) -> web.StreamResponse:
    """Keep a message: 202 and what it became; with `?wait=true` or as a stream, also its answer."""
    node, session_id = request.app[NODE], _session_id(request)
    body = await bodies.fields(request, CHAT, LIMITS.chat_bytes)
    key = request.headers.get("Idempotency-Key")
    told = {"sessionId": session_id} | ({"clientMsgId": key} if key is not None else {})
    command = cast(Chat, convert({**body, **told}, Chat))
    wait = request.query.get("wait", "false")
    if wait not in ("true", "false"):
        raise BadQuery("?wait= is true or false")
    node.refuse_if_draining()
    agent = node.agents.get(command.agentId or "main")
    async with node.use(session_id) as session:
        accepted = await session.chat(command, principal(request), agent)
        if wants_stream(request):

            async def begin(connection: Connection) -> None:
                connection.answer(accepted)
                node.registry.subscribe(connection, session.channel, accepted.seq - 1)

            return await stream(request, begin, lambda: session.finished(accepted.runId))
        if wait == "true":
            await session.finished(accepted.runId)
            return web.json_response(await outcome(node, session, accepted))
    return web.json_response(notice_fields(accepted), status=202)


async def outcome(node: Node, session: Session, accepted: Accepted) -> dict[str, Any]:
    """Return what a run that has ended said, and how it ended, from the log; raises SessionDeleted."""
    head = session.channel
    texts: list[str] = []
    said: dict[str, Any] = {
        "sessionId": head.id,
        "runId": accepted.runId,
        "messageId": accepted.messageId,
        "content": "",
    }
    cursor = max(accepted.seq, head.floor)
    while found := await node.log.read(head.id, cursor, head.head):
        cursor = found[-1].seq
        for event in found:
            if event.runId == accepted.runId and _take(event, texts, said):
                return said | {"content": "".join(texts)}
    head.refuse_if_deleted()
    return said | {"content": "".join(texts)}


def _take(event: Event, texts: list[str], said: dict[str, Any]) -> bool:
    """Add an event to the outcome; say whether it was the last."""
    body = event.body
    if isinstance(body, (Chunk, WholeMessage)):
        texts.append(body.content)
    elif isinstance(body, RunError):
        said["error"] = {"code": body.code, "message": body.message}
    elif isinstance(body, RunFinished):
        said["stopReason"] = body.stopReason
        if body.usage is not None:
            said["usage"] = attrs.asdict(body.usage)
        return True
    return False


async def cancel(request: web.Request) -> web.Response:
    """Stop what is being answered: all of it, or the run that the body names."""
    body = await bodies.fields(request, '{"runId":"r1"}')
    command = cast(Cancel, convert({**body, "sessionId": _session_id(request)}, Cancel))
    node = request.app[NODE]
    return web.json_response(notice_fields(stop(node, command)))


ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/sessions", listed),
    ("POST", "/sessions", made),
    ("POST", "/sessions/clear", cleared),
    ("GET", "/sessions/{id}", shown),
    ("PATCH", "/sessions/{id}", labelled),
    ("DELETE", "/sessions/{id}", deleted),
    ("GET", "/sessions/{id}/messages", messages),
    ("GET", "/sessions/{id}/events", events),
    ("POST", "/sessions/{id}/chat", chat),
    ("POST", "/sessions/{id}/cancel", cancel),
)
