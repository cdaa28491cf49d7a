"""What the code of an agent has of its run."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hub.errors import AgentError
from hub.hosting.calls import call_from
from hub.hosting.contract import Past, Reply, Run, Shelf
from hub.ids import id_of
from hub.messages import Interrupt

if TYPE_CHECKING:
    from hub.sessions.run import ActiveRun


def view(run: "ActiveRun", past: Sequence[Past]) -> Run:
    """Return what the agent's code gets; it may use it from any task, and after the run has ended."""
    record, owner = run.record, run.owner

    async def ask(question: Interrupt) -> Reply:
        run.questions.check()
        return await run.questions.ask(run.writer.copy_question(question))

    async def keep(name: str, type: str, data: bytes) -> str:
        if run.ended:  # its session may be deleted, and begun anew
            raise AgentError("the answer has ended: nothing is kept any more")
        return await owner.shelf.keep(name, type, data)

    return Run(
        id=record.runId,
        agent=record.agentId,
        session=id_of(record.key),
        message=record.message,
        principal=record.author,
        history=past,
        call=call_from(run.agent_task),
        ask=ask,
        shelf=Shelf(owner.shelf.file, keep),
        parts=record.parts or (),
        metadata=record.metadata or {},
    )
