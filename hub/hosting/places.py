"""The places of agents: each answer takes one, and those that wait for one are woken in order."""

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

    It counts in `places`, against `max_runs`, until it is given back, and in `working` until the agent's code has
    ended. *caller* is the place of the answer that called this one.
    """

    agent: Agent
    places: "Places"
    caller: "Place | None" = None
    is_held: bool = attrs.field(default=True, init=False)
    _is_working: bool = attrs.field(default=True, init=False)

    def give_back(self) -> None:
        """Let another answer have the place, though the code goes on."""
        if self.is_held:
            self.is_held = False
            self.agent.places -= 1
            self.places.freed(self)

    def release(self) -> None:
        """Count no more: the code has ended, or will not be called; twice is once."""
        if self._is_working:
            self._is_working = False
            self.agent.working -= 1
            self.agent.places -= self.is_held
            self.is_held = False
            self.places.freed(self)  # also where the place was given back before: the code has ended only now


class Waiter(Protocol):
    """What waits for a place: the schedule of a session, or a call."""

    def next(self) -> None:
        """Take a place now, or wait again: there is one, or the agent has gone."""


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
            # In this step: nobody else may take it before the call goes on.
            self.place.set_result(self.places.take(self.places.agents.get(self.agent_id), self.caller))
        except HubError as gone:
            self.place.set_exception(gone)


@attrs.define(eq=False, repr=False)
class Places:
    """Who waits for a place of which agent, in the order in which they came.

    A place that nobody waits for costs nothing, however many sessions there are. An agent that was loaded anew under
    its id has places of its own.
    """

    agents: Agents
    _held: set[Place] = attrs.Factory(set)
    _queues: dict[str, "OrderedDict[Waiter, None]"] = attrs.Factory(dict)  # by agent id
    _wanted: dict[Waiter, Set[str]] = attrs.Factory(dict)  # the agent ids in whose queues one is

    def take(self, agent: Agent, caller: Place | None = None) -> Place:
        """Take a place of an agent. Whether it has one is up to the caller: no await between the look and this."""
        agent.working += 1
        agent.places += 1
        place = Place(agent, self, caller)
        self._held.add(place)
        return place

    async def take_for_call(self, agent_id: str, caller: Place) -> Place:
        """Take a place for a call, in turn; cancelled, it waits no more.

        Raises UnknownAgent or AgentBroken, and AgentError (`call_deadlock`) where the wait would have no end.
        """
        agent = self.agents.get(agent_id)
        if not agent.full:
            return self.take(agent, caller)
        if self._is_deadlock(agent, caller):
            line = f"agent {agent_id} was not called: its answers wait for the one that calls it; raise its max_runs"
            raise AgentError(line, "call_deadlock")
        turn = Turn(self, agent_id, caller)
        self.wait(turn, {agent_id})
        try:
            return await turn.place
        except asyncio.CancelledError:
            self.wait(turn, frozenset())
            if not turn.place.cancelled() and turn.place.exception() is None:
                turn.place.result().release()  # it came in the same turn of the loop
            raise

    def wait(self, waiter: Waiter, agent_ids: Set[str]) -> None:
        """Wake a waiter when one of these agents has a place, and for no other agent any more.

        It keeps its turn where it waits already; one that is woken waits no more, unless it comes here again.
        """
        before = self._wanted.pop(waiter, frozenset())
        for agent_id in before - agent_ids:
            self._leave(waiter, agent_id)
        for agent_id in agent_ids:
            self._queues.setdefault(agent_id, OrderedDict()).setdefault(waiter)
        if agent_ids:
            self._wanted[waiter] = agent_ids

    def changed(self) -> None:
        """Offer what places there are: agents have come, gone, or been loaded again."""
        for agent_id in list(self._queues):
            self._offer(agent_id)

    def freed(self, place: Place) -> None:
        """Offer the place of an answer that has ended; close the adapter of an agent that was retired."""
        self._held.discard(place)
        self.agents.freed(place.agent)
        self._offer(place.agent.id)

    def _offer(self, agent_id: str) -> None:
        """Wake those who wait, one by one, until there is no place any more."""
        while agent_id in self._queues and self._has_place(agent_id):
            waiter = next(iter(self._queues[agent_id]))
            self.wait(waiter, self._wanted[waiter] - {agent_id})
            waiter.next()

    def _has_place(self, agent_id: str) -> bool:
        try:
            return not self.agents.get(agent_id).full
        except HubError:
            return True  # whoever waits for it need not wait any more: it is told so

    def _leave(self, waiter: Waiter, agent_id: str) -> None:
        queue = self._queues[agent_id]
        del queue[waiter]
        if not queue:
            del self._queues[agent_id]

    def _is_deadlock(self, wanted: Agent, caller: Place) -> bool:
        """Return whether no answer of the agent *wanted* could end while *caller* waits for a place of it.

        An answer can end if each answer that it called can, and each agent that it waits for has an answer that can.
        Only a new wait can close a circle, so it is enough to look before each.
        """
        waits = [(turn.caller, self.agents.get(turn.agent_id)) for turn in self._wanted if isinstance(turn, Turn)]
        waits.append((caller, wanted))
        stuck, before = set(self._held), -1
        while len(stuck) != before:
            before = len(stuck)
            given_back = {place.agent for place in self._held - stuck}
            needed = {place.caller for place in stuck} | {who for who, agent in waits if agent not in given_back}
            stuck &= needed
        return all(place in stuck for place in self._held if place.agent is wanted)
