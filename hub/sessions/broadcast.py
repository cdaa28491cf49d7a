"""A message to all who listen to an agent: an answer that nobody asked for, kept in one commit."""

from hub.hosting.hosted import Agent
from hub.messages import BroadcastReceipt, HistoryMessage, RunFinished, RunStarted, WholeMessage
from hub.sessions.outbox import PendingEvent, attach_future
from hub.sessions.session import LiveSession


def place(agent: Agent) -> str:
    """Return the session in which an agent's broadcasts are kept."""
    return f"agent:{agent.id}"


async def broadcast(session: LiveSession, agent: Agent, content: str) -> BroadcastReceipt:
    """Say *content* as a run of *agent* that is over at once; return when it is kept.

    So whoever hears the agent's answers hears it in the same way, and once. Raises Draining, SessionDeleted and
    StorageUnavailable; nothing is kept then.
    """
    session.admission.check_open()
    run_id, message_id = session.host.seams.new_id("r"), session.host.seams.new_id("m")

    def item(body: RunStarted | WholeMessage | RunFinished, message: HistoryMessage | None = None) -> PendingEvent:
        return PendingEvent(agent.id, run_id, body, messages=(message,) if message else (), is_refusable=True)

    said = item(
        WholeMessage(message_id, content),
        HistoryMessage(
            messageId=message_id, role="assistant", content=content, agentId=agent.id, runId=run_id, author=None
        ),
    )
    kept = attach_future(said)
    session.outbox.put(item(RunStarted(message_id)), said, item(RunFinished(message_id, "end_turn")))
    return BroadcastReceipt(session.id, run_id, message_id, await kept)
