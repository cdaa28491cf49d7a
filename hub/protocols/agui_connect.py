"""AG-UI's connection to a session: its messages, then the run that is going on, or the next one."""

from collections.abc import Iterable, Mapping
from time import time
from typing import Any

import attrs
import orjson

from hub.messages import Event, InterruptResolved, MessageRemoved, RunFinished, RunStarted, UserMessage
from hub.protocols.agui import AguiStream
from hub.protocols.agui_request import make_call_id
from hub.protocols.agui_snapshot import make_snapshot, make_user_messages
from hub.protocols.sse import escape_separators, http_chunk


class ConnectStream(AguiStream):
    """The stream of one connection. It has one run, and ends with the run, or with its question.

    The run is the first that starts. *continued_run_id* is a run that was shown up to a question: after the reply, it
    goes on. Users' messages before the run come with its start. *next_seq* is the cursor for the next stream: it is
    before the first event that this stream has left out.

    If messages are removed before the run, the stream ends without a cursor: the client connects again, and gets the
    messages that are left.
    """

    def __init__(
        self,
        thread_id: str,
        client_run_id: str,
        continued_run_id: str | None = None,
        has_cancelled_outcome: bool = True,
    ) -> None:
        super().__init__("", client_run_id, thread_id, has_cancelled_outcome=has_cancelled_outcome)
        self._continued_run_id = continued_run_id
        self._start_seq: int | None = None
        self._final_seq: int | None = None
        self._snapshot_seq = 0
        self._user_messages: dict[int, UserMessage] = {}  # by seq
        self._omitted_seqs: set[int] = set()

    def carries(self, run_id: str) -> bool:
        return True

    def encode_snapshot(self, history: Iterable[Mapping[str, Any]], head: int, is_idle: bool) -> bytes:
        """Encode the messages up to the event *head* as a run of AG-UI: a client accepts no event outside of a run.

        *is_idle* is the result of this run. If it is false, a run is active or queued: it follows, also without `live`.
        """
        self._snapshot_seq = head
        run = {"threadId": self.thread_id, "runId": self.client_run_id}
        events = (
            {"type": "RUN_STARTED", **run},
            {"type": "MESSAGES_SNAPSHOT", "messages": make_snapshot(history)},
            {"type": "RUN_FINISHED", **run, "outcome": {"type": "success"}, "result": {"isIdle": is_idle}},
        )
        timestamp = {"timestamp": int(time() * 1000)}
        return b"".join(
            http_chunk(b"data: %b\n\n" % escape_separators(orjson.dumps(event | timestamp))) for event in events
        )

    def event(self, event: Event) -> bytes:
        if self._final_seq is not None and event.seq > self._final_seq:
            return b""
        if self._start_seq is None and self._is_start(event):
            self._start_seq, self.run_id, self.client_run_id = event.seq, event.runId or "", event.runId or ""
        body = event.body
        if self._start_seq is None or event.seq < self._start_seq:
            if isinstance(body, UserMessage):
                self._user_messages[event.seq] = body
            elif isinstance(body, MessageRemoved) and event.seq > self._snapshot_seq:
                self._final_seq = event.seq
                self.end_event.set()
            return b""
        if event.runId != self.run_id:
            is_for_next = isinstance(body, (UserMessage, MessageRemoved)) or self._is_start(event)
            if is_for_next and event.seq > self._snapshot_seq:
                self._omitted_seqs.add(event.seq)
            return b""
        if isinstance(body, RunFinished):
            self._final_seq = event.seq
        start = b""
        if event.seq == self._start_seq and isinstance(body, InterruptResolved):
            start = self.encode_start()
        data = start + super().event(event)
        if isinstance(body, RunFinished):
            self.end_event.set()
        return data

    def _is_start(self, event: Event) -> bool:
        if isinstance(event.body, RunStarted):
            return event.body.attempt == 1
        return isinstance(event.body, InterruptResolved) and event.runId == self._continued_run_id

    def translate(self, event: Event, body: Any) -> list[dict[str, Any]]:
        objects = super().translate(event, body)
        if objects and isinstance(body, RunStarted) and (messages := self._list_messages(body)):
            run = {"threadId": event.sessionId, "runId": self.run_id}
            # AG-UI's client 0.0.59, which is CopilotKit's, requires the lists.
            objects[0]["input"] = run | {"messages": messages, "tools": [], "context": []}
        return objects

    def _list_messages(self, start: RunStarted) -> list[dict[str, Any]]:
        messages = []
        for seq, body in sorted(self._user_messages.items()):
            parts = body.parts or ()
            ids = {part["toolCallId"]: part["toolCallId"] for part in parts if part["type"] == "tool_result"}
            if start.parentRunId is not None:
                ids = {id: make_call_id(id, start.parentRunId) for id in ids}
            messages += make_user_messages(attrs.asdict(body), ids)
        return messages

    def make_cursor(self, event: Event) -> dict[str, str]:
        cursor = super().make_cursor(event)
        if self._omitted_seqs:
            cursor["lastEventId"] = f"{event.epoch}:{min(self._omitted_seqs) - 1}"
        if self._continued_run_id not in (None, self.run_id):
            cursor.setdefault("runId", self._continued_run_id or "")
        return cursor
