"""Rewrite the history: edit a message, or regenerate an answer.

The hub holds the history, so both commands work for every agent. The new run has the request of the message that it
answers: the sender of the command sees an answer, not its tools and its sampling, and wants another answer to the same
request. An edit of another author's message has it without what that author's client shared. Each command:

1. pauses the admission of the session: no chat is admitted and no run starts before step 3;
2. stops the runs that answer the user's message or a later one, and waits until the log holds their ends;
3. logs the `message_removed`, the new message (only an edit has one) and the new run in one commit.

If a command is refused after step 2, the stopped runs have ended, and nothing else has changed.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain

from hub.errors import UnknownMessage, WrongMessage
from hub.messages import Accepted, Chat, Edit, HistoryMessage, MessageRemoved, Regenerate, RunStarted
from hub.sessions import stopping
from hub.sessions.chats import Removal, Sender, make_digest
from hub.sessions.file_access import fill_file_parts
from hub.sessions.run import ActiveRun
from hub.sessions.session import LiveSession
from hub.sessions.tool_results import RunBasis, drop_client_data, list_result_ids


async def edit_message(session: LiveSession, command: Edit, sender: Sender, default_agent: str) -> Accepted:
    """Replace a message and all later ones by a new message. Return when the log holds the new message.

    If *command* names no agent, the agent of the old answer answers again, or *default_agent* if there is no answer.
    Raises UnknownMessage, WrongMessage, and the errors of Admission.admit() except Busy.
    """
    chat = Chat(
        message=command.message,
        clientMsgId=command.clientMsgId,
        parts=command.parts,
        metadata=command.metadata,
        ref=command.ref,
    )
    digest = make_digest(chat, "edit", command.messageId, command.agentId)
    edit = partial(_edit, session, command, chat, sender, digest, default_agent)
    return await session.admission.single_flight.run_once(chat, sender.author, digest, edit)


async def _edit(
    session: LiveSession, command: Edit, chat: Chat, sender: Sender, digest: str, default_agent: str
) -> Accepted:
    chat = await fill_file_parts(session.host.files, session.key, chat)
    async with session.admission.reserve_place(sender.author) as place, session.admission.pause(chat):
        messages = await _read_messages_from(session, command.messageId)
        if messages[0].role != "user":
            text = f"{command.messageId} is an agent's message: edit a user's message, or regenerate this one"
            raise WrongMessage(text, sessionId=session.id)
        agent_id, empty_ids = await _find_answering_agent(session, messages)
        # Find the agent before runs are stopped: an unknown agent is then refused without any change.
        agent_id = command.agentId or agent_id or default_agent
        sender.check(agent_id)
        agent = session.host.agents.get_working(agent_id)
        basis = await _find_edit_basis(session, chat, messages, sender)
        agent.check_request(basis.request)
        messages, stopped_ids = await _stop_runs(session, command.messageId)
        # No await from here to put(): the removal must contain every message from the edited one on.
        removal = Removal(_merge_ids(messages, empty_ids, stopped_ids))
        answer = session.admission.put(chat, sender, agent, digest, basis, removal, place)
    return await answer


async def regenerate_answer(session: LiveSession, command: Regenerate, sender: Sender) -> Accepted:
    """Start a new run for a message. Return when the log holds the run. *command* names the message or its answer.

    If *command* names no agent, the agent of the old answer answers again. Raises the errors of edit_message().
    """
    chat = Chat(message="", clientMsgId=command.clientMsgId, ref=command.ref)
    digest = make_digest(chat, "regenerate", command.messageId, command.agentId)
    regenerate = partial(_regenerate, session, command, chat, sender, digest)
    return await session.admission.single_flight.run_once(chat, sender.author, digest, regenerate)


async def _regenerate(session: LiveSession, command: Regenerate, chat: Chat, sender: Sender, digest: str) -> Accepted:
    async with session.admission.reserve_place(sender.author) as place, session.admission.pause(chat):
        messages = await _read_messages_from(session, command.messageId, skip=1)
        if messages[0].role == "assistant":
            messages = await _read_messages_from(session, messages[0].userMessageId or command.messageId, skip=1)
        message_id = messages[0].messageId
        if messages[0].role == "assistant":
            text = f"message {message_id} is a broadcast, which answers no message: send a chat instead"
            raise WrongMessage(text, sessionId=session.id)
        agent_id, empty_ids = await _find_answering_agent(session, messages)
        if agent_id is None:
            raise WrongMessage(f"message {message_id} has no answer yet: edit it to get one", sessionId=session.id)
        agent_id = command.agentId or agent_id
        sender.check(agent_id)
        agent = session.host.agents.get_working(agent_id)  # before runs are stopped, as in _edit()
        basis = await session.admission.call_finder.find_stored_basis(messages[0])
        agent.check_request(basis.request)
        messages, stopped_ids = await _stop_runs(session, message_id, skip=1)
        # No await from here to put(), as in _edit().
        removal = Removal(_merge_ids(messages[1:], empty_ids, stopped_ids), reused_message=messages[0])
        answer = session.admission.put(chat, sender, agent, digest, basis, removal, place)
    return await answer


async def _find_edit_basis(
    session: LiveSession, chat: Chat, messages: Sequence[HistoryMessage], sender: Sender
) -> RunBasis:
    """Return what the run of an edit takes over: the request of the old message, unless the edit has results of tools.

    Those must be the results of calls before the old message. What the client of another author shared is left out: it
    would stay in the sender's message when that author is erased. Raises the errors of CallFinder.find_basis().
    """
    if call_ids := list_result_ids(chat.parts):
        removed_ids = {message.messageId for message in messages}
        return await session.admission.find_basis(chat, call_ids, with_active_runs=False, removed_ids=removed_ids)
    request = (await session.admission.call_finder.find_stored_basis(messages[0])).request
    author = messages[0].author
    if request is not None and author is not None and author.id != sender.author.id:
        request = drop_client_data(request)
    return RunBasis(request=request)


def _merge_ids(messages: Sequence[HistoryMessage], *more_ids: list[str]) -> tuple[str, ...]:
    """Return the ids of *messages* and *more_ids*, in order.

    Each id is in the result once: the finished messages of a stopped run can be in both.
    """
    return tuple(dict.fromkeys([*(message.messageId for message in messages), *chain(*more_ids)]))


def make_unknown_message_error(session_id: str, message_id: str) -> UnknownMessage:
    """Return the error for a message that is not in the history."""
    return UnknownMessage(f"session {session_id} has no finished message {message_id}", sessionId=session_id)


async def _read_messages_from(session: LiveSession, message_id: str, skip: int = 0) -> Sequence[HistoryMessage]:
    """Return a message and all later ones. The result is current until the caller's next await.

    The caller keeps the first *skip* messages, and removes the rest from the history. Raises UnknownMessage,
    StorageUnavailable, and WrongMessage if the rest has more than `taken_messages` messages.
    """
    limit = session.host.limits.taken_messages
    while True:
        await session.outbox.wait_for_history()
        version = session.outbox.history_version
        messages = await session.host.log.sessions.read_messages_from(session.key, message_id, limit + skip + 1)
        if session.outbox.history_version != version or session.outbox.will_change_history():
            continue  # the history has changed since the read began, or will change: read again
        if not messages:
            raise make_unknown_message_error(session.id, message_id)
        if len(messages) > limit + skip:
            text = f"this would remove more than {limit} messages, from {message_id} on: fork the session there instead"
            raise WrongMessage(text, sessionId=session.id)
        return messages


async def _stop_runs(
    session: LiveSession, message_id: str, skip: int = 0
) -> tuple[Sequence[HistoryMessage], list[str]]:
    """Stop the runs that answer a message or a later one.

    Return the messages as _read_messages_from() does, and the ids of the messages of the stopped runs. Raises the
    errors of _read_messages_from(), and StorageUnavailable if the end of a run cannot be logged.
    """
    stopped_ids: list[str] = []
    while True:
        messages = await _read_messages_from(session, message_id, skip)
        runs = _find_runs(session, messages)
        if not runs:
            return messages, stopped_ids
        await stopping.end_runs(session.schedule, runs)  # a run may finish a message before its end: read again
        stopped_ids += [id for run in runs for id in run.message_ids]


def _find_runs(session: LiveSession, messages: Sequence[HistoryMessage]) -> list[ActiveRun]:
    """Return the queued and active runs that answer one of *messages*."""
    user_ids = {message.messageId for message in messages if message.role == "user"}
    return [
        run for run in (*session.queued_runs, *session.active_runs.values()) if run.record.userMessageId in user_ids
    ]


async def _find_answering_agent(
    session: LiveSession, messages: Sequence[HistoryMessage]
) -> tuple[str | None, list[str]]:
    """Return the id of the agent that answers the first message now, or else of the agent of its last answer.

    If neither exists, return the agent of the first answer in _find_empty_answers(), and the ids of all these answers:
    they are not in the history, but clients must remove them, too. If there is no such answer, the agent's id is None.
    """
    message_id = messages[0].messageId
    active_agents = [run.record.agentId for run in _find_runs(session, messages[:1])]
    former_agents = [message.agentId for message in messages if message.userMessageId == message_id]
    if active_agents:
        return active_agents[0], []
    if former_agents:
        return former_agents[-1], []
    empty_answers = await _find_empty_answers(session, messages)
    return next(iter(empty_answers.values()), None), list(empty_answers)


async def _find_empty_answers(session: LiveSession, messages: Sequence[HistoryMessage]) -> dict[str, str | None]:
    """Find the answers after the first message that have no message in the history. Return their agents by their ids.

    Removed answers are left out. The log has an empty answer only as events, so the answer is not found after these
    events have expired.
    """
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
