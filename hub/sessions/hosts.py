"""The contracts that a session and a run need: the node implements SessionHost, and the schedule RunOwner."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hub.hosting.contract import FileAccess, Past
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
    """The parts of the node that its sessions use."""

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

    def on_session_change(self, session: "LiveSession") -> None:
        """Send the state of a session to its subscribers, after its runs, its queue or its questions have changed."""

    def unload_if_unused(self, key: Key) -> None:
        """Remove the session from memory if nothing needs it."""


class RunOwner(Protocol):
    """The parts of a session's schedule that its runs use."""

    outbox: Outbox
    file_access: FileAccess

    async def read_history(self, run: "ActiveRun") -> Sequence[Past]:
        """Return the earlier messages of the session, for the run's agent. Raises StorageUnavailable."""

    def on_questions_change(self) -> None:
        """React to a question that was logged or closed."""

    def on_run_end(self, run: "ActiveRun") -> None:
        """React to the end of a run, when the log holds it. Called once."""
