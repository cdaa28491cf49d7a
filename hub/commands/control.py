"""Stop answers, and answer the questions that they ask."""

from collections.abc import Sequence

import orjson

from hub.access.principal import Principal
from hub.commands.hub import Hub
from hub.errors import AlreadyResolved, BadFrame, NotRunning
from hub.hosting.contract import Reply
from hub.ids import Key
from hub.messages import Cancel, Cancelling, Ok, Resume
from hub.sessions import stopping
from hub.sessions.questions import Questions, check_payload, find_question, find_resolution, make_closed_error
from hub.storage.records import ChatRecord


async def cancel(hub: Hub, principal: Principal, command: Cancel) -> Cancelling:
    """Stop runs; each one's end follows when its work has stopped. Raises NotRunning."""
    return stop(hub, principal, command)


def stop(hub: Hub, principal: Principal, command: Cancel) -> Cancelling:
    """Do what cancel() does, in one step."""
    session = hub.node.sessions.get(
        hub.key(principal, command.sessionId)
    )  # one with a run, or a waiting one, is in memory
    if session is None:
        name, run_id = command.sessionId, command.runId
        text = f"run {run_id} is not running in session {name}" if run_id else f"no answer is running in session {name}"
        raise NotRunning(text, sessionId=name)
    run_ids = stopping.cancel_runs(session.schedule, command.runId, command.queued)
    return Cancelling(sessionId=session.id, runIds=run_ids, ref=command.ref)


async def resume(hub: Hub, principal: Principal, command: Resume) -> Ok:
    """Answer an open question; return when the answer is kept.

    Raises UnknownInterrupt, AlreadyResolved, BadFrame, Draining, StorageUnavailable.
    """
    await _reply(hub, principal, command)
    return Ok(ref=command.ref)


async def _reply(hub: Hub, principal: Principal, command: Resume) -> None:
    key = hub.key(principal, command.sessionId)
    questions = _open_questions(hub, key, command.interruptId)
    if questions is not None:
        await questions.answer(command.interruptId, Reply(command.status, command.payload, principal.author))
        return
    await find_question(hub.node.log.runs, key, command.interruptId)
    hub.node.refuse_if_draining()  # the question may be of a run that starts again
    raise make_closed_error(command.sessionId, command.interruptId)


def _open_questions(hub: Hub, key: Key, interrupt_id: str) -> Questions | None:
    """Return the questions among which this one is open, or None."""
    session = hub.node.sessions.get(key)  # one with an open question is in memory
    return session.find_questions(interrupt_id) if session is not None else None


async def answer_questions(
    hub: Hub, principal: Principal, session_id: str, replies: Sequence[Resume]
) -> tuple[str, int]:
    """Answer questions of one run; return the run's id, and the seq after which its client must read on.

    All are looked at before any is kept. The same answers may be sent again. A question that is closed may be
    `cancelled`, so that its asker can go on. Raises what resume() does.
    """
    key = hub.key(principal, session_id)
    questions = [await find_question(hub.node.log.runs, key, reply.interruptId) for reply in replies]
    if len({question.runId for question in questions}) > 1:
        raise BadFrame("these questions are of several runs: answer each run's in a request of its own")
    for reply, question in zip(replies, questions, strict=True):
        await _check(hub, principal, key, question, reply)
    for reply, question in zip(replies, questions, strict=True):
        try:
            await _reply(hub, principal, reply)
        except AlreadyResolved:
            if reply.status == "resolved" and not await _stands(hub, principal, key, question, reply):
                raise
    return questions[0].runId, min(question.seq for question in questions)


async def _check(hub: Hub, principal: Principal, key: Key, question: ChatRecord, reply: Resume) -> None:
    """Raise what an answer would be refused with, as far as that is known before any of them is kept."""
    check_payload(reply.payload, hub.limits)
    if _open_questions(hub, key, reply.interruptId) is None and reply.status == "resolved":
        if not await _stands(hub, principal, key, question, reply):
            hub.node.refuse_if_draining()
            raise make_closed_error(reply.sessionId, reply.interruptId)


async def _stands(hub: Hub, principal: Principal, key: Key, question: ChatRecord, reply: Resume) -> bool:
    """Return whether this very answer is the one that the log has."""
    log = hub.node.log
    head = await log.sessions.find(key)
    body = await find_resolution(log.events, key, question, head.seq if head is not None else 0)
    if body is None or body.resolvedBy is None:
        return False
    same_text = _json(body.payload) == _json(reply.payload)
    return same_text and (body.resolvedBy.id, body.status) == (principal.id, reply.status)


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
