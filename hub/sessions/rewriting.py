"""Taking back and branching: a message is answered anew, or said anew, or a session goes on as another one.

The hub holds the history, so it works for every agent. Whatever is taken back is named by one `message_removed`, in
the commit of what takes its place. Before that the runs concerned are stopped, and their ends are in the log; no chat
comes in meanwhile, and no run starts. Where it is refused in between, those runs have ended and nothing else happened.
"""

from collections.abc import Sequence
from functools import partial

import attrs

from hub.errors import SessionExists, UnknownMessage, WrongMessage
from hub.ids import Key
from hub.limits import Limits, size_text
from hub.messages import (
    Accepted,
    Author,
    Body,
    Chat,
    Edit,
    Fork,
    HistoryMessage,
    MessageRemoved,
    Regenerate,
    RunStarted,
    UserMessage,
    WholeMessage,
)
from hub.sessions import stopping
from hub.sessions.chats import Taken, digest
from hub.sessions.outbox import PendingEvent, attach_future
from hub.sessions.run import ActiveRun
from hub.sessions.session import LiveSession
from hub.storage.log import SessionStore


async def edit(session: LiveSession, command: Edit, author: Author, default: str) -> Accepted:
    """Say another message in a message's place; return when it is kept. *default* answers what nobody answered yet."""
    chat = Chat(
        message=command.message,
        clientMsgId=command.clientMsgId,
        parts=command.parts,
        metadata=command.metadata,
        ref=command.ref,
    )
    said = digest(chat, "edit", command.messageId, command.agentId)
    return await session.admission.once.keep(
        chat, author, said, partial(_edit, session, command, chat, author, said, default)
    )


async def _edit(session: LiveSession, command: Edit, chat: Chat, author: Author, said: str, default: str) -> Accepted:
    async with session.admission.alone(chat):
        found = await _trail(session, command.messageId)
        if found[0].role != "user":
            raise _wrong(session, f"{command.messageId} is an agent's message: edit a user's, or regenerate this one")
        answered_by, silent = await _answered(session, found)
        agent = session.host.agents.get(command.agentId or answered_by or default)
        found, stopped = await _stop(session, command.messageId)
        taken = Taken(tuple(dict.fromkeys([*_ids(found), *silent, *stopped])))
        accepted = session.admission.put(chat, author, agent, said, taken)
    return await accepted


async def regenerate(session: LiveSession, command: Regenerate, author: Author) -> Accepted:
    """Have a message answered anew; return when its new run is kept."""
    chat = Chat(message="", clientMsgId=command.clientMsgId, ref=command.ref)
    said = digest(chat, "regenerate", command.messageId, command.agentId)
    return await session.admission.once.keep(
        chat, author, said, partial(_regenerate, session, command, chat, author, said)
    )


async def _regenerate(session: LiveSession, command: Regenerate, chat: Chat, author: Author, said: str) -> Accepted:
    async with session.admission.alone(chat):
        found = await _trail(session, command.messageId, stays=1)
        if found[0].role == "assistant":
            found = await _trail(session, found[0].userMessageId or command.messageId, stays=1)
        asked = found[0].messageId
        answered_by, silent = await _answered(session, found)
        if answered_by is None:
            raise _wrong(session, f"nothing has answered {asked} yet: edit it to have it answered")
        agent = session.host.agents.get(command.agentId or answered_by)
        found, stopped = await _stop(session, asked, stays=1)
        taken = Taken(tuple(dict.fromkeys([*_ids(found[1:]), *silent, *stopped])), again=found[0])
        accepted = session.admission.put(chat, author, agent, said, taken)
    return await accepted


def _ids(messages: Sequence[HistoryMessage]) -> list[str]:
    return [message.messageId for message in messages]


def _wrong(session: LiveSession, line: str) -> WrongMessage:
    return WrongMessage(line, sessionId=session.id)


def _unknown(session_id: str, message_id: str) -> UnknownMessage:
    return UnknownMessage(f"session {session_id} has no finished message {message_id}", sessionId=session_id)


async def _trail(session: LiveSession, message_id: str, stays: int = 0) -> Sequence[HistoryMessage]:
    """Return a message and all after it, as the history is when this returns; to be used before the next await.

    Raises WrongMessage where more than `taken_messages` of them would go; the first *stays* are not taken back.
    """
    most = session.host.limits.taken_messages
    while True:
        await session.outbox.wait_for_history()
        before = session.outbox.history_version
        found = await session.host.log.sessions.read_messages_from(session.key, message_id, most + stays + 1)
        if session.outbox.history_version != before or session.outbox.will_change_history():
            continue  # a run has ended meanwhile
        if not found:
            raise _unknown(session.id, message_id)
        if len(found) > most + stays:
            line = f"more than {most} messages would be taken back from {message_id} on: fork the session there instead"
            raise _wrong(session, line)
        return found


async def _stop(session: LiveSession, message_id: str, stays: int = 0) -> tuple[Sequence[HistoryMessage], list[str]]:
    """Stop the runs of a message and of those after it; return what `_trail` does, and the ids of what they said."""
    said: list[str] = []
    while True:
        found = await _trail(session, message_id, stays)
        runs = _runs(session, found)
        if not runs:
            return found, said
        await stopping.end(session.schedule, runs)
        said += [one for run in runs for one in run.message_ids]


def _runs(session: LiveSession, found: Sequence[HistoryMessage]) -> list[ActiveRun]:
    asked = {message.messageId for message in found if message.role == "user"}
    return [run for run in (*session.queue, *session.runs.values()) if run.record.userMessageId in asked]


async def _answered(session: LiveSession, found: Sequence[HistoryMessage]) -> tuple[str | None, list[str]]:
    """Return the agent that answers the first of *found*, did, or failed to; None where none was asked.

    And, where it failed, the ids of the answers that are to go beside *found*.
    """
    asked = found[0].messageId
    going = [run.record.agentId for run in _runs(session, found[:1])]
    said = [message.agentId for message in found if message.userMessageId == asked]
    if going or said:
        return (going or said[-1:])[0], []
    silent = await _silent(session, found)
    return next(iter(silent.values()), None), [*silent]


async def _silent(session: LiveSession, found: Sequence[HistoryMessage]) -> dict[str, str | None]:
    """Return the answers after the first of *found* that ended without a word, and stand: their ids and agents."""
    spoke = {message.runId for message in found}
    silent: dict[str, str | None] = {}
    cursor = max(found[0].seq, session.channel.floor)
    while events := await session.host.log.events.read(session.key, cursor, session.channel.head):
        cursor = events[-1].seq
        for event in events:
            if isinstance(event.body, RunStarted) and event.runId not in spoke:
                silent[event.body.messageId] = event.agentId
            elif isinstance(event.body, MessageRemoved):
                for message_id in event.body.messageIds:
                    silent.pop(message_id, None)
    return silent


# --- branching --------------------------------------------------------------------------------------------------------


async def history(store: SessionStore, key: Key, command: Fork, limits: Limits) -> Sequence[HistoryMessage]:
    """Return what a fork begins with: the newest messages up to the one it names, as many as may be copied."""
    messages = await store.read_last_messages(key, limits.fork_messages, limits.fork_bytes, command.messageId)
    if messages:
        return messages
    if not await store.read_messages_from(key, command.messageId, 1):
        raise _unknown(command.sessionId, command.messageId)
    line = f"message {command.messageId} alone has more than the {size_text(limits.fork_bytes)} that a fork may copy"
    raise WrongMessage(line, sessionId=command.sessionId)


async def copy(session: LiveSession, messages: Sequence[HistoryMessage]) -> None:
    """Let a session in which nothing was said begin with *messages*, kept in one commit; raises SessionExists.

    Their runs are the other session's, and stay there.
    """
    async with session.admission.alone():
        if session.channel.head:
            raise SessionExists(f"session {session.id} is there already: fork into a new one", sessionId=session.id)
        items = [
            PendingEvent(one.agentId, None, _body(one), messages=(attrs.evolve(one, runId=None),), is_refusable=True)
            for one in messages
        ]
        kept = attach_future(items[-1])
        session.outbox.put(*items)
    await kept


def _body(message: HistoryMessage) -> Body:
    if message.author is None:
        return WholeMessage(
            message.messageId, message.content, message.parts, stopReason=message.stopReason, error=message.error
        )
    return UserMessage(
        messageId=message.messageId,
        author=message.author,
        content=message.content,
        clientMsgId=None,
        parts=message.parts,
        metadata=message.metadata,
    )
