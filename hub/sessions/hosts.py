"""What a session and a run stand on: contracts of a few names, which the node and the session's schedule fulfil."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hub.hosting.contract import Past, Shelf
from hub.hosting.folder import Agents
from hub.hosting.slots import Slots
from hub.ids import Key
from hub.limits import Limits
from hub.observe.counters import Counters
from hub.seams import Seams
from hub.sessions.outbox import Outbox
from hub.sessions.pace import Pace
from hub.storage.blobs import Files
from hub.storage.log import Log

if TYPE_CHECKING:
    from hub.sessions.run import ActiveRun
    from hub.sessions.session import LiveSession


class SessionHost(Protocol):
    """The node, as its sessions see it."""

    log: Log
    agents: Agents
    files: Files
    pace: Pace
    slots: Slots
    seams: Seams

    @property
    def limits(self) -> Limits: ...

    @property
    def counters(self) -> Counters: ...

    def session_changed(self, session: "LiveSession") -> None:
        """The session's runs, queue or questions have changed: tell those who hear it."""

    def tidy(self, key: Key) -> None:
        """The session may leave memory, if nothing else needs it."""


class RunOwner(Protocol):
    """The schedule of a session, as its runs see it."""

    outbox: Outbox
    shelf: Shelf

    async def read_history(self, run: "ActiveRun") -> Sequence[Past]:
        """Return what was said before."""

    def on_questions_change(self) -> None:
        """A question of a run was kept, or closed."""

    def on_run_end(self, run: "ActiveRun") -> None:
        """The run's end is in the log; called once."""
