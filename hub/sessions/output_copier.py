"""Copy the output of one run for the log: check it, and count its bytes."""

import attrs
import msgspec
import orjson

from hub.errors import AgentError
from hub.hosting.call_ids import CallIds
from hub.hosting.contract import Finish
from hub.hosting.contract import Message as AgentMessage
from hub.hosting.faults import is_count, too_long_error
from hub.hosting.output import check_size, copy_event
from hub.limits import Limits
from hub.messages import FINISH_REASONS, Body, ToolCallResult, Usage
from hub.messages.parts import AnswerParts, JsonParts, parts_to_json


def is_valid_finish(finish: Finish) -> bool:
    """Return whether the fields of a Finish have types and values that the log can hold."""
    usage = finish.usage
    if usage is not None and not isinstance(usage, Usage):
        return False
    counts = () if usage is None else (usage.inputTokens, usage.outputTokens)
    return finish.reason in FINISH_REASONS and all(count is None or is_count(count) for count in counts)


@attrs.define(eq=False, repr=False)
class OutputCopier:
    """Copies what an agent gives: the agent may change the originals later. *total_bytes* counts all output of the run.

    The methods raise AgentError for output that is invalid or too large.
    """

    agent_id: str
    limits: Limits
    total_bytes: int = 0
    _call_ids: CallIds = attrs.Factory(CallIds)

    def copy(self, event: Body) -> tuple[Body, int]:
        """Return a copy of an event for the log, and its size. Count its bytes for the run's limit."""
        body, size = copy_event(self.agent_id, event)
        self.count_bytes(size)
        if not isinstance(body, ToolCallResult):  # a large one was stored as a file
            self._check_size(size, event.type)
        return self._call_ids.rename(body), size

    def copy_parts(self, message: AgentMessage) -> JsonParts | None:
        """Return a copy of the message's parts as JSON, or None if the message has no parts."""
        if not message.parts:
            return None
        try:
            data = orjson.dumps(message.parts)
            if len(message.parts) > self.limits.message_parts:
                raise ValueError(f"more than {self.limits.message_parts} parts")
            parts = parts_to_json(msgspec.json.decode(data, type=AnswerParts))
        except (TypeError, ValueError) as error:
            raise AgentError(
                f"agent {self.agent_id} gave a message with bad parts: {error}", "agent_bad_output"
            ) from None
        self.count_bytes(len(data))
        self._check_size(len(data), "message with parts")
        return parts

    def count_bytes(self, size: int) -> None:
        self.total_bytes += size
        if self.total_bytes > self.limits.run_bytes:
            raise self.make_limit_error()

    def make_limit_error(self) -> AgentError:
        return too_long_error(self.agent_id, self.limits.run_bytes)

    def _check_size(self, size: int, noun: str) -> None:
        check_size(self.agent_id, size, noun, self.limits.content_bytes)
