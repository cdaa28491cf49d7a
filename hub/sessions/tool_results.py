"""Find the tool calls whose results a client sends, and pair calls with results in the history."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from hub.errors import BadFrame, ToolCallAnswered, UnknownToolCall
from hub.ids import Key, id_of
from hub.messages import HistoryMessage, Request
from hub.messages.parts import Parts, ToolResultPart
from hub.sessions.outbox import Outbox
from hub.sessions.run import ActiveRun
from hub.storage.log import SessionStore


@attrs.frozen(kw_only=True)
class RunBasis:
    """What a new run takes from the chat or from an earlier run.

    *agent_id* is the agent of the run *parent_run_id*, whose tool calls have their results in the message. With
    *must_wait*, that run has not ended, and the new run waits for its end.
    """

    request: Request | None = None
    parent_run_id: str | None = None
    agent_id: str | None = None
    must_wait: bool = False


@attrs.define(eq=False)
class PairedCall:
    """A tool call in the history: its message, its part, and the part of its result, or None if it is open."""

    message: HistoryMessage
    part: dict[str, Any]
    result: dict[str, Any] | None = None


@attrs.define(eq=False)
class CallPairs:
    """The tool calls of messages, by their ids and in order, each with its result.

    Agents may reuse an id: a result belongs to the last call before it. A result may also come before the call,
    because the message of the call is only logged at the end of its run. *early_results* are those that belong to no
    call so far.
    """

    calls: dict[str, list[PairedCall]] = attrs.Factory(dict)
    early_results: dict[str, list[dict[str, Any]]] = attrs.Factory(dict)

    def add(self, message: HistoryMessage) -> None:
        """Add the next message."""
        for part in message.parts or ():
            call_id = part.get("toolCallId", "")
            calls = self.calls.setdefault(call_id, [])
            early_results = self.early_results.setdefault(call_id, [])
            if part["type"] == "tool_call":
                calls.append(PairedCall(message, part, early_results.pop(0) if early_results else None))
            elif part["type"] == "tool_result" and calls and calls[-1].result is None:
                calls[-1].result = part
            elif part["type"] == "tool_result":
                early_results.append(part)


def pair_calls(messages: Iterable[HistoryMessage]) -> CallPairs:
    """Return the tool calls of messages, each with its result."""
    pairs = CallPairs()
    for message in messages:
        pairs.add(message)
    return pairs


def list_result_ids(parts: Parts | None) -> list[str]:
    """Return the ids of the tool calls whose results a message has. Raises BadFrame for two results of one call."""
    ids = [part.toolCallId for part in parts or () if isinstance(part, ToolResultPart)]
    if len({*ids}) < len(ids):
        raise BadFrame("the message has two results of one tool call: send one result for each call")
    return ids


def make_follow_up(request: Request | None) -> Request | None:
    """Return the request for the run that gets the results of tool calls: that of the run with the calls.

    A choice that requires a tool is left out, because the call was made. The state, the context and the forwarded props
    are left out, because they are as old as the call.
    """
    if request is None:
        return None
    choice = None if request.is_tool_required else request.tool_choice
    return attrs.evolve(drop_client_data(request), tool_choice=choice)


def drop_client_data(request: Request) -> Request:
    """Return a request without what the client shared."""
    return attrs.evolve(request, state=None, context=(), forwarded=None)


@attrs.frozen(kw_only=True)
class CallFinder:
    """Finds tool calls in one session: in the history, and in the active runs. The queued runs may have results."""

    key: Key
    store: SessionStore
    outbox: Outbox
    active_runs: dict[str, ActiveRun]
    queued_runs: list[ActiveRun]

    async def find_basis(
        self,
        call_ids: Sequence[str],
        *,
        run_ids: Mapping[str, str] = {},
        with_active_runs: bool = True,
        removed_ids: Collection[str] = (),
    ) -> RunBasis:
        """Return the basis of the run that answers the results of these calls. It is current until the next await.

        *run_ids* are the runs of calls, as far as they are known. Messages in *removed_ids* do not count. Call this
        while no chat is admitted. Raises UnknownToolCall, ToolCallAnswered, StorageUnavailable.
        """
        while True:
            await self.outbox.wait_for_history()
            version = self.outbox.history_version
            messages = await self.store.read_tool_messages(self.key, call_ids)
            pairs = pair_calls(message for message in messages if message.messageId not in removed_ids)
            calls = [pairs.calls[id][-1] for id in call_ids if pairs.calls.get(id)]
            request = await self._read_request(calls[0].message) if calls else None
            if self.outbox.history_version == version and not self.outbox.will_change_history():
                break
        runs = [self._check_call(id, pairs, with_active_runs, run_ids.get(id)) for id in call_ids]
        active_run = next(filter(None, runs), None)
        if active_run is not None:
            record = active_run.record
            return RunBasis(
                request=make_follow_up(record.request),
                parent_run_id=record.runId,
                agent_id=record.agentId,
                must_wait=True,
            )
        message = calls[0].message
        return RunBasis(request=make_follow_up(request), parent_run_id=message.runId, agent_id=message.agentId)

    async def find_stored_basis(self, message: HistoryMessage) -> RunBasis:
        """Return the basis of the first run of a user's message, as far as the log still has it."""
        request = await self.store.find_request(self.key, message.messageId)
        call_ids = {part["toolCallId"] for part in message.parts or () if part["type"] == "tool_result"}
        if not call_ids:
            return RunBasis(request=request)
        pairs = pair_calls(await self.store.read_tool_messages(self.key, call_ids))
        calls = [call for id in call_ids for call in pairs.calls.get(id, ())]
        return RunBasis(request=request, parent_run_id=calls[-1].message.runId if calls else None)

    async def _read_request(self, message: HistoryMessage) -> Request | None:
        question_id = message.userMessageId
        return None if question_id is None else await self.store.find_request(self.key, question_id)

    def _check_call(
        self, call_id: str, pairs: CallPairs, with_active_runs: bool, run_id: str | None
    ) -> ActiveRun | None:
        """Return the active run with an open call, or None if the open call is in the history."""
        runs = self.active_runs.values() if with_active_runs else ()
        run = next((run for run in runs if run.writer.calls.has_open_call(call_id)), None)
        calls = pairs.calls.get(call_id, [])
        session_id = id_of(self.key)
        if run is None and not calls:
            text = f"session {session_id} has no tool call {call_id}: it was removed, or belongs to another session"
            raise UnknownToolCall(text, sessionId=session_id)
        target_id = run.id if run is not None else calls[-1].message.runId
        if run_id not in (None, target_id) and any(call.message.runId == run_id for call in calls):
            has_result = True  # or never gets one: a later call has the same id
        elif run is None:
            has_result = calls[-1].result is not None
        else:
            has_result = bool(pairs.early_results.get(call_id)) or self._has_queued_result(run, call_id)
        if has_result:
            text = f"tool call {call_id} has a result already: only the first result counts"
            raise ToolCallAnswered(text, sessionId=session_id)
        return run

    def _has_queued_result(self, run: ActiveRun, call_id: str) -> bool:
        """Return whether a queued run has the result of a call of an active run.

        In the history, the result may look like that of an earlier call with the same id, which has none.
        """
        records = [queued_run.record for queued_run in self.queued_runs if queued_run.record.parentRunId == run.id]
        parts = [part for record in records for part in record.parts or ()]
        return any(part["type"] == "tool_result" and part["toolCallId"] == call_id for part in parts)
