"""Build the `hub.Run` that an agent's code receives."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hub.errors import AgentError
from hub.hosting.calls import make_call_function
from hub.hosting.contract import FileAccess, Reply, Run
from hub.ids import id_of
from hub.messages import Interrupt, Past
from hub.messages.requests import EMPTY_REQUEST

if TYPE_CHECKING:
    from hub.sessions.run import ActiveRun


def make_view(run: "ActiveRun", past: Sequence[Past]) -> Run:
    """Return the Run for the agent's code. The code may use it in any task, also after the run has ended."""
    record, owner = run.record, run.owner

    async def ask(question: Interrupt) -> Reply:
        run.questions.check_can_ask()
        return await run.questions.ask(run.writer.copy_question(question))

    async def store(name: str, type: str, data: bytes) -> str:
        if run.has_ended:  # the session may have been deleted, and a new one may have its id
            raise AgentError("the answer has ended: it can store no more files")
        return await owner.file_access.store(name, type, data)

    return Run(
        id=record.runId,
        agent=record.agentId,
        session=id_of(record.key),
        message=record.message,
        principal=record.author,
        history=past,
        call=make_call_function(run.agent_task),
        ask=ask,
        file_access=FileAccess(owner.file_access.read, store),
        parts=record.parts or (),
        metadata=record.metadata or {},
        request=record.request or EMPTY_REQUEST,
    )
