"""Rewrite the history: edit a message, regenerate an answer, or fork a session.

The hub holds the history, so this works for every agent. An edit or a regeneration first stops the runs of the messages
that it removes, and waits until the log holds their ends. Then one commit logs the `message_removed` with the ids of
these messages, the new message and its run. Meanwhile no chat is admitted and no run starts. If the command is refused
after its runs were stopped, these runs have ended, and nothing else has changed.
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
from hub.sessions.chats import Removal, make_digest
from hub.sessions.outbox import PendingEvent, attach_future
from hub.sessions.run import ActiveRun
from hub.sessions.session import LiveSession
from hub.storage.log import SessionStore


async def edit_message(session: LiveSession, command: Edit, author: Author, default: str) -> Accepted:
    """Replace a message and all after it; return when the log holds the new message.

    Without an agent in *command*, the agent of the old answer answers; *default* if there was none.
    """
    chat = Chat(
        message=command.message,
        clientMsgId=command.clientMsgId,
        parts=command.parts,
        metadata=command.metadata,
        ref=command.ref,
    )
    digest = make_digest(chat, "edit", command.messageId, command.agentId)
    return await session.admission.single_flight.run_once(
        chat, author, digest, partial(_edit, session, command, chat, author, digest, default)
    )


async def _edit(session: LiveSession, command: Edit, chat: Chat, author: Author, digest: str, default: str) -> Accepted:
    async with session.admission.lock(chat):
        messages = await _read_trail(session, command.messageId)
        if messages[0].role != "user":
            raise _make_wrong_message(
                session, f"{command.messageId} is an agent's message: edit a user's message, or regenerate this one"
            )
        agent_id, empty_ids = await _find_answers(session, messages)
        agent = session.host.agents.get(command.agentId or agent_id or default)
        messages, stopped_ids = await _stop_runs(session, command.messageId)
        removal = Removal(tuple(dict.fromkeys([*_ids(messages), *empty_ids, *stopped_ids])))
        answer = session.admission.put(chat, author, agent, digest, removal)
    return await answer


async def regenerate_answer(session: LiveSession, command: Regenerate, author: Author) -> Accepted:
    """Answer a message again; return when the log holds the new run. *command* names the message or an answer to it."""
    chat = Chat(message="", clientMsgId=command.clientMsgId, ref=command.ref)
    digest = make_digest(chat, "regenerate", command.messageId, command.agentId)
    return await session.admission.single_flight.run_once(
        chat, author, digest, partial(_regenerate, session, command, chat, author, digest)
    )


async def _regenerate(session: LiveSession, command: Regenerate, chat: Chat, author: Author, digest: str) -> Accepted:
    async with session.admission.lock(chat):
        messages = await _read_trail(session, command.messageId, skip=1)
        if messages[0].role == "assistant":
            messages = await _read_trail(session, messages[0].userMessageId or command.messageId, skip=1)
        message_id = messages[0].messageId
        agent_id, empty_ids = await _find_answers(session, messages)
        if agent_id is None:
            raise _make_wrong_message(session, f"message {message_id} has no answer yet: edit it to get one")
        agent = session.host.agents.get(command.agentId or agent_id)
        messages, stopped_ids = await _stop_runs(session, message_id, skip=1)
        removal = Removal(
            tuple(dict.fromkeys([*_ids(messages[1:]), *empty_ids, *stopped_ids])), reused_message=messages[0]
        )
        answer = session.admission.put(chat, author, agent, digest, removal)
    return await answer


def _ids(messages: Sequence[HistoryMessage]) -> list[str]:
    return [message.messageId for message in messages]


def _make_wrong_message(session: LiveSession, line: str) -> WrongMessage:
    return WrongMessage(line, sessionId=session.id)


def _make_unknown_message(session_id: str, message_id: str) -> UnknownMessage:
    return UnknownMessage(f"session {session_id} has no finished message {message_id}", sessionId=session_id)


async def _read_trail(session: LiveSession, message_id: str, skip: int = 0) -> Sequence[HistoryMessage]:
    """Return a message and all after it. The result is current until the caller's next await.

    Raises WrongMessage if the command would remove more than `taken_messages` of them. The first *skip* messages stay
    in the history, and do not count.
    """
    limit = session.host.limits.taken_messages
    while True:
        await session.outbox.wait_for_history()
        version = session.outbox.history_version
        messages = await session.host.log.sessions.read_messages_from(session.key, message_id, limit + skip + 1)
        if session.outbox.history_version != version or session.outbox.will_change_history():
            continue  # a run has ended meanwhile: read again
        if not messages:
            raise _make_unknown_message(session.id, message_id)
        if len(messages) > limit + skip:
            line = f"this would remove more than {limit} messages, from {message_id} on: fork the session there instead"
            raise _make_wrong_message(session, line)
        return messages


async def _stop_runs(
    session: LiveSession, message_id: str, skip: int = 0
) -> tuple[Sequence[HistoryMessage], list[str]]:
    """Stop the runs of a message and of those after it.

    Return the messages as `_read_trail` does, and the ids of the messages of the stopped runs.
    """
    stopped_ids: list[str] = []
    while True:
        messages = await _read_trail(session, message_id, skip)
        runs = _find_runs(session, messages)
        if not runs:
            return messages, stopped_ids
        await stopping.end_runs(session.schedule, runs)
        stopped_ids += [id for run in runs for id in run.message_ids]


def _find_runs(session: LiveSession, messages: Sequence[HistoryMessage]) -> list[ActiveRun]:
    user_ids = {message.messageId for message in messages if message.role == "user"}
    return [run for run in (*session.queue, *session.runs.values()) if run.record.userMessageId in user_ids]


async def _find_answers(session: LiveSession, messages: Sequence[HistoryMessage]) -> tuple[str | None, list[str]]:
    """Return the agent that answers, has answered or failed to answer the first message, or None if there is none.

    Also return the ids of the answers without text: they are not in the history, but must be removed, too.
    """
    message_id = messages[0].messageId
    active_agents = [run.record.agentId for run in _find_runs(session, messages[:1])]
    former_agents = [message.agentId for message in messages if message.userMessageId == message_id]
    if active_agents or former_agents:
        return (active_agents or former_agents[-1:])[0], []
    empty_answers = await _find_empty_answers(session, messages)
    return next(iter(empty_answers.values()), None), [*empty_answers]


async def _find_empty_answers(session: LiveSession, messages: Sequence[HistoryMessage]) -> dict[str, str | None]:
    """Return the ids and agents of the answers after the first message that ended without text and were not removed."""
    runs_with_text = {message.runId for message in messages}
    answers: dict[str, str | None] = {}
    cursor = max(messages[0].seq, session.channel.floor)
    while events := await session.host.log.events.read(session.key, cursor, session.channel.head):
        cursor = events[-1].seq
        for event in events:
            if isinstance(event.body, RunStarted) and event.runId not in runs_with_text:
                answers[event.body.messageId] = event.agentId
            elif isinstance(event.body, MessageRemoved):
                for message_id in event.body.messageIds:
                    answers.pop(message_id, None)
    return answers


# --- fork -------------------------------------------------------------------------------------------------------------


async def read_fork(store: SessionStore, key: Key, command: Fork, limits: Limits) -> Sequence[HistoryMessage]:
    """Return the messages that a fork copies: the newest ones up to the message in *command*, within the limits."""
    messages = await store.read_last_messages(key, limits.fork_messages, limits.fork_bytes, command.messageId)
    if messages:
        return messages
    if not await store.read_messages_from(key, command.messageId, 1):
        raise _make_unknown_message(command.sessionId, command.messageId)
    line = f"message {command.messageId} alone has more than the {size_text(limits.fork_bytes)} that a fork can copy"
    raise WrongMessage(line, sessionId=command.sessionId)


async def start_fork(session: LiveSession, messages: Sequence[HistoryMessage]) -> None:
    """Log *messages* as the first ones of an empty session, in one commit. Raises SessionExists.

    The copies have no run: the runs belong to the other session.
    """
    async with session.admission.lock():
        if session.channel.head:
            raise SessionExists(f"session {session.id} exists already: fork into a new one", sessionId=session.id)
        events = [
            PendingEvent(
                message.agentId,
                None,
                _make_body(message),
                messages=(attrs.evolve(message, runId=None),),
                is_refusable=True,
            )
            for message in messages
        ]
        seq = attach_future(events[-1])
        session.outbox.put(*events)
    await seq


def _make_body(message: HistoryMessage) -> Body:
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
