"""The ownership of a run by the request that started it."""

from types import TracebackType

import attrs

from hub.sessions.session import LiveSession


@attrs.define(eq=False)
class RunOwnership:
    """A context for the time of one request. From begin() on, the request owns a run.

    If the context ends before the run, the run becomes an orphan, unless *is_over* is True: see Hearing.
    """

    is_over: bool = False
    _session: LiveSession | None = None
    _run_id: str = ""

    def begin(self, session: LiveSession, run_id: str) -> None:
        """Own a run. Call this once, in the step in which the run is known."""
        self._session, self._run_id = session, run_id
        session.schedule.hearing.own(run_id)

    def __enter__(self) -> "RunOwnership":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            self._session.schedule.hearing.disown(self._run_id, makes_orphan=not self.is_over)
