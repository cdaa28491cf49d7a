"""Use cases that stop runs, and that answer the questions of runs."""

from collections.abc import Sequence

import orjson

from hub.access.principal import Principal
from hub.commands.guard import check_agent, check_session
from hub.commands.hub import Hub
from hub.errors import AlreadyResolved, BadFrame, NotRunning
from hub.hosting.contract import Reply
from hub.ids import Key
from hub.messages import Cancel, Cancelling, Ok, Resume
from hub.sessions import stopping
from hub.sessions.questions import Questions, check_payload, find_question_record, find_resolution, make_closed_error
from hub.storage.records import ChatRecord


async def cancel(hub: Hub, principal: Principal, command: Cancel) -> Cancelling:
    """Stop runs. The `run_finished` of each run follows when its agent has stopped. Raises NotRunning."""
    return cancel_now(hub, principal, command)


def cancel_now(hub: Hub, principal: Principal, command: Cancel) -> Cancelling:
    """Stop runs as cancel() does, but without an await: no other task runs before the runs are stopped."""
    key = hub.make_key(principal, command.sessionId)
    session = hub.node.sessions.get(key)  # a session with an active or a queued run is in memory
    if session is not None:
        check_session(hub, principal, "write", session)
    else:
        session_id, run_id = command.sessionId, command.runId
        text = (
            f"run {run_id} is not running in session {session_id}"
            if run_id
            else f"no answer is running in session {session_id}"
        )
        raise NotRunning(text, sessionId=session_id)
    run_ids = stopping.cancel_runs(session.schedule, command.runId, command.queued)
    return Cancelling(sessionId=session.id, runIds=run_ids, ref=command.ref)


async def resume(hub: Hub, principal: Principal, command: Resume) -> Ok:
    """Answer an open question. Return when the answer is stored.

    Raises UnknownInterrupt, AlreadyResolved, BadFrame, Draining, StorageUnavailable.
    """
    await _store_reply(hub, principal, command)
    return Ok(ref=command.ref)


async def _store_reply(hub: Hub, principal: Principal, command: Resume) -> None:
    """Give the reply to the run that asked. Return when the reply is stored. Raises the errors of resume()."""
    key = hub.make_key(principal, command.sessionId)
    questions = _find_open_questions(hub, key, command.interruptId)
    if questions is not None:
        check_session(hub, principal, "write", hub.node.sessions[key])  # the principal may have changed since the door
        check_agent(hub, principal, questions.agent)
        await questions.answer(command.interruptId, Reply(command.status, command.payload, principal.author))
        return
    # Raises UnknownInterrupt if this question was never asked.
    await find_question_record(hub.node.log.runs, key, command.interruptId)
    hub.node.refuse_if_draining()  # after the restart, the question's run may start again
    raise make_closed_error(command.sessionId, command.interruptId)


def _find_open_questions(hub: Hub, key: Key, interrupt_id: str) -> Questions | None:
    """Return the questions of the run that asked *interrupt_id*, or None if that question is not open."""
    session = hub.node.sessions.get(key)  # a session with an open question is in memory
    return session.find_questions(interrupt_id) if session is not None else None


async def answer_questions(
    hub: Hub, principal: Principal, session_id: str, replies: Sequence[Resume]
) -> tuple[str, int]:
    """Answer questions of one run. Return the run's id, and the cursor from which the client reads on.

    All answers are checked before the first one is stored. Sending the same answers again is allowed.
    Answering `cancelled` to a closed question is allowed too, so that a client can continue.
    Raises the errors of resume().
    """
    key = hub.make_key(principal, session_id)
    records = [await find_question_record(hub.node.log.runs, key, reply.interruptId) for reply in replies]
    if len({record.runId for record in records}) > 1:
        raise BadFrame("these questions belong to several runs: answer those of each run in a separate request")
    for reply, record in zip(replies, records, strict=True):
        await _check_reply(hub, principal, key, record, reply)
    for reply, record in zip(replies, records, strict=True):
        try:
            await _store_reply(hub, principal, reply)
        except AlreadyResolved:  # another client answered since the check, or this client did in an earlier request
            if reply.status == "resolved" and not await _is_stored_answer(hub, principal, key, record, reply):
                raise
    return records[0].runId, min(record.seq for record in records)


async def _check_reply(hub: Hub, principal: Principal, key: Key, record: ChatRecord, reply: Resume) -> None:
    """Raise BadFrame, AlreadyResolved or Draining if *reply* cannot be accepted now. Do not store the reply."""
    check_payload(reply.payload, hub.limits)
    if _find_open_questions(hub, key, reply.interruptId) is None and reply.status == "resolved":
        if not await _is_stored_answer(hub, principal, key, record, reply):
            hub.node.refuse_if_draining()
            raise make_closed_error(reply.sessionId, reply.interruptId)


async def _is_stored_answer(hub: Hub, principal: Principal, key: Key, record: ChatRecord, reply: Resume) -> bool:
    """Return True if the log has this answer from the same principal, and its event has not expired."""
    log = hub.node.log
    head = await log.sessions.find(key)
    body = await find_resolution(log.events, key, record, head.seq if head is not None else 0)
    if body is None or body.resolvedBy is None:
        return False
    is_same_payload = _write_sorted_json(body.payload) == _write_sorted_json(reply.payload)
    return is_same_payload and (body.resolvedBy.id, body.status) == (principal.id, reply.status)


def _write_sorted_json(value: object) -> bytes:
    """Return JSON that is equal for equal values: the order of keys does not count."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
