"""Log a broadcast: a message of an agent to all subscribers of the agent's group. It answers no user's message."""

from hub.hosting.hosted import Agent
from hub.messages import BroadcastReceipt, HistoryMessage, RunFinished, RunStarted, WholeMessage
from hub.sessions.pending import PendingEvent, attach_future
from hub.sessions.session import LiveSession


def make_broadcast_session_id(agent: Agent) -> str:
    """Return the id of the session that holds an agent's broadcasts."""
    return f"agent:{agent.id}"


async def log_broadcast(session: LiveSession, agent: Agent, content: str) -> BroadcastReceipt:
    """Log *content* as a complete run of *agent*, in one commit. Return when the log holds it.

    Clients receive the broadcast exactly as they receive an answer. Raises Draining, SessionDeleted and
    StorageUnavailable; then nothing is logged.
    """
    session.admission.check_open()
    run_id, message_id = session.host.seams.new_id("r"), session.host.seams.new_id("m")

    def make_event(
        body: RunStarted | WholeMessage | RunFinished, history_message: HistoryMessage | None = None
    ) -> PendingEvent:
        return PendingEvent(
            agent.id, run_id, body, messages=(history_message,) if history_message else (), is_refusable=True
        )

    message = make_event(
        WholeMessage(message_id, content),
        HistoryMessage(
            messageId=message_id, role="assistant", content=content, agentId=agent.id, runId=run_id, author=None
        ),
    )
    seq = attach_future(message)
    session.outbox.put(make_event(RunStarted(message_id)), message, make_event(RunFinished(message_id, "end_turn")))
    return BroadcastReceipt(session.id, run_id, message_id, await seq)
