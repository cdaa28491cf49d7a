"""The places of agents: each answer takes one, and the sessions in which a run waits for one are woken in order."""

from collections import OrderedDict
from collections.abc import Callable, Set
from typing import TYPE_CHECKING

import attrs

from hub.errors import HubError
from hub.hosting.folder import Agents
from hub.hosting.hosted import Agent

if TYPE_CHECKING:
    from hub.sessions.schedule import Schedule


@attrs.define(eq=False, repr=False)
class Place:
    """The place of one answer at its agent.

    It counts in `places`, against `max_runs`, until it is given back, and in `working` until the agent's code has
    ended. *freed* is called at each of both.
    """

    agent: Agent
    freed: Callable[[Agent], None]
    _is_held: bool = True
    _is_working: bool = True

    def give_back(self) -> None:
        """Let another answer have the place, though the code goes on."""
        if self._is_held:
            self._is_held = False
            self.agent.places -= 1
            self.freed(self.agent)

    def release(self) -> None:
        """Count no more: the code has ended, or will not be called; twice is once."""
        if self._is_working:
            self._is_working = False
            self.agent.working -= 1
            self.agent.places -= self._is_held
            self._is_held = False
            self.freed(self.agent)  # also where the place was given back before: the code has ended only now


@attrs.define(eq=False, repr=False)
class Places:
    """Who waits for a place of which agent, in the order in which they came.

    A place that nobody waits for costs nothing, however many sessions there are. An agent that was loaded anew under
    its id has places of its own.
    """

    agents: Agents
    _queues: dict[str, "OrderedDict[Schedule, None]"] = attrs.Factory(dict)  # by agent id
    _wanted: dict["Schedule", Set[str]] = attrs.Factory(dict)  # the agent ids in whose queues a session is

    def take(self, agent: Agent) -> Place:
        """Take a place of an agent. Whether it has one is up to the caller: no await between the look and this."""
        agent.working += 1
        agent.places += 1
        return Place(agent, self.freed)

    def wait(self, schedule: "Schedule", agent_ids: Set[str]) -> None:
        """Wake a session when one of these agents has a place, and for no other agent any more.

        It keeps its turn where it waits already; one that is woken waits no more, unless it comes here again.
        """
        before = self._wanted.pop(schedule, frozenset())
        for agent_id in before - agent_ids:
            self._leave(schedule, agent_id)
        for agent_id in agent_ids:
            self._queues.setdefault(agent_id, OrderedDict()).setdefault(schedule)
        if agent_ids:
            self._wanted[schedule] = agent_ids

    def freed(self, agent: Agent) -> None:
        """Offer the place of an answer that has ended; close the adapter of an agent that was retired."""
        self.agents.freed(agent)
        self._offer(agent.id)

    def changed(self) -> None:
        """Offer what places there are: agents have come, gone, or been loaded again."""
        for agent_id in list(self._queues):
            self._offer(agent_id)

    def _offer(self, agent_id: str) -> None:
        """Wake those who wait, one by one, until there is no place any more."""
        while agent_id in self._queues and self._has_place(agent_id):
            schedule = next(iter(self._queues[agent_id]))
            self.wait(schedule, self._wanted[schedule] - {agent_id})
            schedule.next()

    def _has_place(self, agent_id: str) -> bool:
        try:
            return not self.agents.get(agent_id).full
        except HubError:
            return True  # whoever waits for it need not wait any more: it is told so

    def _leave(self, schedule: "Schedule", agent_id: str) -> None:
        queue = self._queues[agent_id]
        del queue[schedule]
        if not queue:
            del self._queues[agent_id]
