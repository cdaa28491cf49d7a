"""Place a client's subscription, in the step in which the client is answered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from hub.commands.client import ClientHandle
from hub.commands.hub import Hub
from hub.delivery.channel import Channel
from hub.ids import Key
from hub.messages import Accepted, Command, Subscribed
from hub.sessions.session import LiveSession

ResetReason = Literal["epoch_changed", "too_old", "past_head"]
AnswerBuilder = Callable[[LiveSession], Subscribed]


@contextmanager
def room_for(client: ClientHandle, key: Key) -> Iterator[None]:
    """Keep room for a subscription, so that a command that was accepted finds it. Raises TooManySubscriptions.

    Commands for other sessions are carried out beside this one, and would take it.
    """
    client.hub.node.registry.check_limit(client.connection, key, client.joining)
    client.joining |= {key}
    try:
        yield
    finally:
        client.joining -= {key}


def admit(client: ClientHandle, channel: Channel, accepted: Accepted, before: int = 1) -> None:
    """Answer a chat, and subscribe its sender from *before* events ahead of the accepted one.

    A sender that hears the whole session already keeps its place. Raises SessionDeleted: a command has one answer.
    """
    channel.refuse_if_deleted()
    client.answer(accepted)
    sub = client.connection.subscriptions.get(channel.key)
    if sub is None or sub.run_ids is not None:
        cursor = min(accepted.seq - before, channel.find_join_cursor())
        client.hub.node.registry.subscribe(client.connection, channel, cursor, is_client_cursor=False)


def subscribed(hub: Hub, command: Command, history: tuple[dict[str, Any], ...] | None) -> AnswerBuilder:
    """Return what makes the answer to *command*, when the session is at hand."""

    def answer(session: LiveSession) -> Subscribed:
        return Subscribed(
            sessionId=session.id,
            epoch=session.channel.epoch,
            seq=session.channel.head,
            agents=tuple(agent.id for agent in hub.node.agents.all()),
            members=hub.node.presence.make_notice(session.channel).members,
            active=session.make_state().active,
            history=history,
            ref=command.ref,
        )

    return answer


async def join(
    client: ClientHandle,
    session: LiveSession,
    after: int | None,
    epoch: str | None,
    answer: AnswerBuilder | None = None,
) -> None:
    """Subscribe a client from its cursor. If the cursor does not fit, send a reset and subscribe as a new client."""
    channel, node = session.channel, client.hub.node
    if misfit(channel, after, epoch) is not None:
        messages = await node.read_reset_messages(session.key)
    # No await from here on: the cursor is checked, answered and placed against the same head.
    channel.refuse_if_deleted()
    node.registry.check_limit(client.connection, channel.key, client.joining)
    reason = misfit(channel, after, epoch)
    if answer is not None:
        client.answer(answer(session))
    if reason is not None:
        client.connection.send_reset(channel, reason, messages)
        after = channel.find_join_cursor()
    node.registry.subscribe(client.connection, channel, after)


def misfit(channel: Channel, after: int | None, epoch: str | None) -> ResetReason | None:
    """Return why a cursor means nothing in this session, or None where it fits."""
    if after is None:
        return None
    if epoch is not None and epoch != channel.epoch:
        return "epoch_changed"
    if after > channel.head:
        return "past_head"
    return "too_old" if after < channel.floor else None
