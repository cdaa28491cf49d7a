"""The contracts that a session and a run need: the node implements SessionHost, and the schedule RunOwner."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hub.access.records import UsageRecord
from hub.hosting.contract import FileAccess
from hub.hosting.folder import Agents
from hub.hosting.slots import Slots
from hub.ids import Key
from hub.limits import Limits
from hub.messages import Past
from hub.observe.counters import Counters
from hub.seams import Seams
from hub.sessions.outbox import Outbox
from hub.sessions.pace import Pace
from hub.storage.blobs import Files
from hub.storage.log import Log

if TYPE_CHECKING:
    from hub.observe.otel import Tracing
    from hub.sessions.run import ActiveRun
    from hub.sessions.session import LiveSession


class RunPlace(Protocol):
    """The place of one unfinished run in the quotas of its principal and its tenant.

    *is_used* is True as soon as a run has the place: the end of the run closes it.
    """

    is_used: bool

    def close(self, usage: Sequence[UsageRecord] = ()) -> None:
        """Give the place back, and count *usage*, which the log has. Only the first call does something."""


class RunQuotas(Protocol):
    """The quotas on the runs of principals and tenants."""

    async def reserve(self, tenant: str, principal_id: str) -> RunPlace:
        """Return a place for a new run. Raises PrincipalQuotaExceeded, StorageUnavailable."""

    async def occupy(self, tenant: str, principal_id: str) -> RunPlace:
        """Return a place for a run of an earlier process, whatever the quotas are. Raises StorageUnavailable."""


class SessionHost(Protocol):
    """The parts of the node that its sessions use. *quotas* is None while sign-in is off: then no usage is counted.

    *tracing* is None while `otel` is off.
    """

    log: Log
    agents: Agents
    files: Files
    pace: Pace
    slots: Slots
    seams: Seams
    quotas: RunQuotas | None
    tracing: "Tracing | None"

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
