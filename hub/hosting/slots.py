"""Limit how many answers an agent gives at a time: each answer uses a slot, and a full agent has a queue."""

import asyncio
from collections import OrderedDict
from collections.abc import Set
from typing import Protocol

import attrs

from hub.errors import AgentError, HubError
from hub.hosting.folder import Agents
from hub.hosting.hosted import Agent


@attrs.define(eq=False, repr=False)
class Slot:
    """One answer's share of its agent's `max_runs`.

    The slot counts in `agent.used_slots` until vacate() or release(), and in `agent.running_answers` until release().
    *caller* is the slot of the answer that called this one, or None for an answer to a client.
    """

    agent: Agent
    slots: "Slots"
    caller: "Slot | None" = None
    is_used: bool = attrs.field(default=True, init=False)
    _is_released: bool = attrs.field(default=False, init=False)

    def vacate(self) -> None:
        """Let another answer use the slot while the agent's code still runs. A second call does nothing."""
        if self.is_used:
            self.is_used = False
            self.agent.used_slots -= 1
            self.slots.on_free(self)

    def release(self) -> None:
        """Free the slot: the agent's code has ended, or will not be called. A second call does nothing."""
        if not self._is_released:
            self._is_released = True
            self.agent.running_answers -= 1
            self.agent.used_slots -= self.is_used
            self.is_used = False
            self.slots.on_free(self)  # also after vacate(), because only now the agent may be idle


class Waiter(Protocol):
    """A session's schedule or a call that waits for a slot."""

    def wake(self) -> None:
        """Take a slot now, or wait again. Called when an agent has a free slot, was removed, or is broken."""


@attrs.define(eq=False, repr=False)
class SlotRequest:
    """A call that waits for a slot of an agent; *caller* is the slot of the calling answer."""

    slots: "Slots"
    agent_id: str
    caller: Slot
    future: "asyncio.Future[Slot]" = attrs.Factory(lambda: asyncio.get_running_loop().create_future())

    def wake(self) -> None:
        if self.future.done():
            return
        try:
            # Take the slot here: if the task of the call took it later, another answer could take it in between.
            self.future.set_result(self.slots.take(self.slots.agents.get_working(self.agent_id), self.caller))
        except HubError as error:
            self.future.set_exception(error)


@attrs.define(eq=False, repr=False)
class Slots:
    """The slots of all agents, and a queue of waiters for each full agent, in order of arrival.

    Sessions that do not wait for a slot take no memory here. A reloaded agent has new slots under the same id.

    *max_answers* limits the answers to clients, of all agents together. A call of an agent by an answer does not count:
    if the calls of all running answers waited for the end of one of them, none would end.
    """

    agents: Agents
    max_answers: int | None = None
    _used_slots: set[Slot] = attrs.field(factory=set, init=False)
    _client_answers: int = attrs.field(default=0, init=False)  # the used slots without a caller
    _queues: dict[str, "OrderedDict[Waiter, None]"] = attrs.field(factory=dict, init=False)  # by agent id
    # The agents in whose queues a waiter is.
    _agent_ids_by_waiter: dict[Waiter, Set[str]] = attrs.field(factory=dict, init=False)

    @property
    def _is_full(self) -> bool:
        """Return whether the hub gives as many answers to clients as it may."""
        return self.max_answers is not None and self._client_answers >= self.max_answers

    def find_reached_limit(self, agent: Agent) -> str | None:
        """Return why the agent may not begin another answer to a client now, as text for clients; None if it may."""
        if agent.is_full:
            return f"agent {agent.id} is at its limit of simultaneous answers (max_runs): try again later"
        if self._is_full:
            return "the hub is at its limit of simultaneous answers (node_runs): try again later"
        return None

    def take(self, agent: Agent, caller: Slot | None = None) -> Slot:
        """Take a slot of an agent. First check that one is free, with no await between check and call.

        For a call, check `agent.is_full`; for an answer to a client, find_reached_limit().
        """
        agent.running_answers += 1
        agent.used_slots += 1
        self._client_answers += caller is None
        slot = Slot(agent, self, caller)
        self._used_slots.add(slot)
        return slot

    async def acquire(self, agent_id: str, caller: Slot) -> Slot:
        """Take a slot for a call; if the agent is full, wait in its queue. A cancel removes the call from the queue.

        Raises UnknownAgent or AgentBroken, and AgentError (`call_deadlock`) if the wait could never end.
        """
        agent = self.agents.get_working(agent_id)
        if not agent.is_full:
            return self.take(agent, caller)
        if self._is_deadlock(agent, caller):
            line = f"agent {agent_id} cannot be called: its running answers wait for the answer that calls it"
            raise AgentError(f"{line}; give agent {agent_id} a larger max_runs", "call_deadlock")
        request = SlotRequest(self, agent_id, caller)
        self.set_queues(request, {agent_id})
        try:
            return await request.future
        except asyncio.CancelledError:
            self.set_queues(request, frozenset())
            if not request.future.cancelled() and request.future.exception() is None:
                request.future.result().release()  # the slot came in the same step of the loop as the cancel
            raise

    def set_queues(self, waiter: Waiter, agent_ids: Set[str]) -> None:
        """Put a waiter into the queues of *agent_ids*, and remove it from the queues of all other agents.

        The waiter keeps its position in a queue in which it already is. It leaves the queue of an agent just before
        wake() is called for that agent.
        """
        previous_ids = self._agent_ids_by_waiter.pop(waiter, frozenset())
        for agent_id in previous_ids - agent_ids:
            self._leave(waiter, agent_id)
        for agent_id in agent_ids:
            self._queues.setdefault(agent_id, OrderedDict()).setdefault(waiter)
        if agent_ids:
            self._agent_ids_by_waiter[waiter] = agent_ids

    def offer_all(self) -> None:
        """Wake waiters after agents were added, removed or reloaded."""
        for agent_id in list(self._queues):
            self._offer(agent_id)

    def on_free(self, slot: Slot) -> None:
        """Offer a freed slot to the agent's queue; close the adapter of a retired agent that is idle."""
        was_full = self._is_full
        if slot in self._used_slots:
            self._used_slots.remove(slot)
            self._client_answers -= slot.caller is None
        self.agents.close_if_idle(slot.agent)
        self._offer(slot.agent.id)
        if was_full:  # sessions may wait for agents that have a free slot
            self.offer_all()

    def _offer(self, agent_id: str) -> None:
        """Wake the waiters of an agent, one by one, until the agent or the hub is full or no waiter is left."""
        while agent_id in self._queues and self._can_wake(agent_id):
            queue = self._queues[agent_id]
            # If the hub is full, a call does not wait behind the sessions.
            waiter = next((waiter for waiter in queue if not self._is_full or isinstance(waiter, SlotRequest)), None)
            if waiter is None:
                return
            self.set_queues(waiter, self._agent_ids_by_waiter[waiter] - {agent_id})
            waiter.wake()

    def _can_wake(self, agent_id: str) -> bool:
        try:
            return not self.agents.get_working(agent_id).is_full
        except HubError:
            return True  # the agent was removed or is broken: its waiters get that error

    def _leave(self, waiter: Waiter, agent_id: str) -> None:
        queue = self._queues[agent_id]
        del queue[waiter]
        if not queue:
            del self._queues[agent_id]

    def _is_deadlock(self, agent: Agent, caller: Slot) -> bool:
        """Return whether no answer of *agent* could end while *caller* waits for a slot of *agent*.

        An answer can end if each answer that it called can end, and each agent that it waits for has an answer that can
        end. Only a new wait can cause a deadlock, so a check before each wait is enough.
        """
        requests = [request for request in self._agent_ids_by_waiter if isinstance(request, SlotRequest)]
        waits = [(request.caller, self.agents.get_working(request.agent_id)) for request in requests]
        waits.append((caller, agent))
        stuck_slots, previous_count = set(self._used_slots), -1
        while len(stuck_slots) != previous_count:
            previous_count = len(stuck_slots)
            free_soon = {slot.agent for slot in self._used_slots - stuck_slots}  # agents of which an answer can end
            callers = {slot.caller for slot in stuck_slots} | {
                slot for slot, target in waits if target not in free_soon
            }
            stuck_slots &= callers  # only an answer that waits for a stuck one stays stuck
        return all(slot in stuck_slots for slot in self._used_slots if slot.agent is agent)
