"""Subscribe a client in the same step in which its command is answered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from hub.access.principal import Principal
from hub.commands.client import ClientHandle
from hub.commands.guard import check_session, find_role
from hub.commands.hub import Hub
from hub.delivery.channel import Channel
from hub.ids import Key
from hub.messages import Accepted, Command, Subscribed
from hub.node.history import read_reset_messages
from hub.sessions.session import LiveSession

ResetReason = Literal["epoch_changed", "too_old", "past_head"]
AnswerBuilder = Callable[[LiveSession], Subscribed]


@contextmanager
def reserve_subscription(client: ClientHandle | None, key: Key) -> Iterator[None]:
    """Reserve a subscription until the context ends, if there is a client. Raises TooManySubscriptions.

    Commands for other sessions run concurrently. Without the reservation, one of them could take the client's last
    subscription after this command was accepted.
    """
    if client is None:
        yield
        return
    client.hub.node.registry.check_limit(client.connection, key, client.reserved_keys)
    client.reserved_keys |= {key}
    try:
        yield
    finally:
        client.reserved_keys -= {key}


def answer_and_subscribe(client: ClientHandle, session: LiveSession, accepted: Accepted, event_count: int = 1) -> None:
    """Answer a chat, and subscribe its sender.

    A new subscription starts with the last *event_count* events up to the accepted one, or with an older run that is
    active. An existing subscription to the whole session keeps its cursor. Raises SessionDeleted, and UnknownSession if
    the client may no longer read the session, before the answer is written.
    """
    channel = session.channel
    channel.refuse_if_deleted()
    check_session(client.hub, client.principal, "read", session)
    client.answer(accepted)
    sub = client.connection.subscriptions.get(channel.key)
    if sub is None or sub.run_ids is not None:
        cursor = min(accepted.seq - event_count, channel.find_join_cursor())
        client.hub.node.registry.subscribe(client.connection, channel, cursor, is_client_cursor=False)


def build_subscribed_answer(
    hub: Hub, principal: Principal, command: Command, history: tuple[dict[str, Any], ...] | None
) -> AnswerBuilder:
    """Return a function that builds the answer to *command* from the session's current state."""

    def answer(session: LiveSession) -> Subscribed:
        return Subscribed(
            sessionId=session.id,
            epoch=session.channel.epoch,
            seq=session.channel.head,
            agents=tuple(agent.id for agent in hub.node.agents.all() if principal.can_use(agent.id)),
            members=hub.node.presence.make_notice(session.channel).members,
            active=session.make_state().active,
            history=history,
            role=find_role(hub, principal, session),
            ref=command.ref,
        )

    return answer


async def subscribe_from(
    client: ClientHandle,
    session: LiveSession,
    after: int | None,
    epoch: str | None,
    build_answer: AnswerBuilder | None = None,
) -> None:
    """Subscribe a client to the events after the cursor (*epoch*, *after*), in the same step as its answer.

    If the cursor is not valid, send a reset, and subscribe the client from the join cursor.
    Raises TooManySubscriptions, SessionDeleted and StorageUnavailable.
    """
    channel, node = session.channel, client.hub.node
    if find_reset_reason(channel, after, epoch) is not None:
        messages = await read_reset_messages(node, session.key)
    # No await from here on: the check, the answer and the subscription must see the same head.
    channel.refuse_if_deleted()
    check_session(client.hub, client.principal, "read", session)
    node.registry.check_limit(client.connection, channel.key, client.reserved_keys)
    reason = find_reset_reason(channel, after, epoch)
    if build_answer is not None:
        client.answer(build_answer(session))
    if reason is not None:
        client.connection.send_reset(channel, reason, messages)
        after = channel.find_join_cursor()
    node.registry.subscribe(client.connection, channel, after)


def find_reset_reason(channel: Channel, after: int | None, epoch: str | None) -> ResetReason | None:
    """Return the reason why a cursor is not valid in this session, or None if it is valid."""
    if after is None:
        return None
    if epoch is not None and epoch != channel.epoch:
        return "epoch_changed"
    if after > channel.head:
        return "past_head"
    return "too_old" if after < channel.floor else None
