"""The places of agents: each answer takes one, and a queue for each agent holds those that wait for one."""

import asyncio
from collections import OrderedDict
from collections.abc import Set
from typing import Protocol

import attrs

from hub.errors import AgentError, HubError
from hub.hosting.folder import Agents
from hub.hosting.hosted import Agent


@attrs.define(eq=False, repr=False)
class Place:
    """The place of one answer at its agent.

    It counts in `agent.places`, against `max_runs`, until it is given back, and in `agent.working` until the agent's
    code has ended. *caller* is the place of the answer that called this one.
    """

    agent: Agent
    places: "Places"
    caller: "Place | None" = None
    is_held: bool = attrs.field(default=True, init=False)
    _is_working: bool = attrs.field(default=True, init=False)

    def give_back(self) -> None:
        """Let another answer take the place, though the code goes on."""
        if self.is_held:
            self.is_held = False
            self.agent.places -= 1
            self.places.freed(self)

    def release(self) -> None:
        """Stop counting: the code has ended, or will not be called. A second call does nothing."""
        if self._is_working:
            self._is_working = False
            self.agent.working -= 1
            self.agent.places -= self.is_held
            self.is_held = False
            self.places.freed(self)  # also if the place was given back before: the code has ended only now


class Waiter(Protocol):
    """Something that waits for a place: the schedule of a session, or a call."""

    def next(self) -> None:
        """Take a place now, or wait again. Called when there is a place, or the agent is gone."""


@attrs.define(eq=False, repr=False)
class Turn:
    """A call that waits for a place of an agent; *caller* is the place of the answer that calls."""

    places: "Places"
    agent_id: str
    caller: Place
    place: "asyncio.Future[Place]" = attrs.Factory(lambda: asyncio.get_running_loop().create_future())

    def next(self) -> None:
        if self.place.done():
            return
        try:
            # Take it now, not when the task of the call goes on: nobody else may take it in between.
            self.place.set_result(self.places.take(self.places.agents.get(self.agent_id), self.caller))
        except HubError as error:
            self.place.set_exception(error)


@attrs.define(eq=False, repr=False)
class Places:
    """The queues of those that wait for a place, one for each agent, in order of arrival.

    A place that nobody waits for costs nothing, however many sessions there are. An agent that was reloaded has places
    of its own, under the same id.
    """

    agents: Agents
    _held: set[Place] = attrs.Factory(set)
    _queues: dict[str, "OrderedDict[Waiter, None]"] = attrs.Factory(dict)  # by agent id
    _wanted: dict[Waiter, Set[str]] = attrs.Factory(dict)  # in the queues of which agents a waiter is

    def take(self, agent: Agent, caller: Place | None = None) -> Place:
        """Take a place of an agent. The caller has checked that there is one, with no await since then."""
        agent.working += 1
        agent.places += 1
        place = Place(agent, self, caller)
        self._held.add(place)
        return place

    async def take_for_call(self, agent_id: str, caller: Place) -> Place:
        """Take a place for a call; wait in the queue if there is none. A cancel leaves the queue.

        Raises UnknownAgent or AgentBroken, and AgentError (`call_deadlock`) if the wait would have no end.
        """
        agent = self.agents.get(agent_id)
        if not agent.full:
            return self.take(agent, caller)
        if self._is_deadlock(agent, caller):
            reason = "its answers wait for the answer that calls it"
            line = f"agent {agent_id} cannot be called, because {reason}: give it a larger max_runs"
            raise AgentError(line, "call_deadlock")
        turn = Turn(self, agent_id, caller)
        self.wait(turn, {agent_id})
        try:
            return await turn.place
        except asyncio.CancelledError:
            self.wait(turn, frozenset())
            if not turn.place.cancelled() and turn.place.exception() is None:
                turn.place.result().release()  # the place came in the same step of the loop as the cancel
            raise

    def wait(self, waiter: Waiter, agent_ids: Set[str]) -> None:
        """Wake a waiter when one of these agents has a place; leave the queues of all other agents.

        The waiter keeps its turn in the queues in which it is already. A waiter that was woken has left that queue.
        """
        before = self._wanted.pop(waiter, frozenset())
        for agent_id in before - agent_ids:
            self._leave(waiter, agent_id)
        for agent_id in agent_ids:
            self._queues.setdefault(agent_id, OrderedDict()).setdefault(waiter)
        if agent_ids:
            self._wanted[waiter] = agent_ids

    def changed(self) -> None:
        """Offer all free places, after agents were added, removed or reloaded."""
        for agent_id in list(self._queues):
            self._offer(agent_id)

    def freed(self, place: Place) -> None:
        """Offer the place of an answer that has ended, and close the adapter if its agent was retired."""
        self._held.discard(place)
        self.agents.freed(place.agent)
        self._offer(place.agent.id)

    def _offer(self, agent_id: str) -> None:
        """Wake the waiters of an agent, one by one, until it has no free place."""
        while agent_id in self._queues and self._has_place(agent_id):
            waiter = next(iter(self._queues[agent_id]))
            self.wait(waiter, self._wanted[waiter] - {agent_id})
            waiter.next()

    def _has_place(self, agent_id: str) -> bool:
        try:
            return not self.agents.get(agent_id).full
        except HubError:
            return True  # the agent is gone: wake its waiters, and they get that error

    def _leave(self, waiter: Waiter, agent_id: str) -> None:
        queue = self._queues[agent_id]
        del queue[waiter]
        if not queue:
            del self._queues[agent_id]

    def _is_deadlock(self, wanted: Agent, caller: Place) -> bool:
        """Return whether no answer of the agent *wanted* could end while *caller* waits for one of its places.

        An answer can end if each answer that it called can end, and each agent that it waits for has an answer that can
        end. Only a new wait can close a circle, so it is enough to check before each wait.
        """
        waits = [(turn.caller, self.agents.get(turn.agent_id)) for turn in self._wanted if isinstance(turn, Turn)]
        waits.append((caller, wanted))
        stuck, before = set(self._held), -1
        while len(stuck) != before:
            before = len(stuck)
            freeing = {place.agent for place in self._held - stuck}  # agents of which a place will come free
            needed = {place.caller for place in stuck} | {place for place, agent in waits if agent not in freeing}
            stuck &= needed
        return all(place in stuck for place in self._held if place.agent is wanted)
