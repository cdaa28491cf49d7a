"""Who hears the runs of a session, and the end of runs that nobody hears any more."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from hub.delivery.channel import Channel, Subscription
from hub.sessions.hosts import SessionHost
from hub.sessions.run import ActiveRun
from hub.sessions.run_states import RunState


@attrs.define(eq=False, repr=False, kw_only=True)
class Hearing:
    """Who hears the runs of one session: subscriptions, and requests that wait. No method awaits.

    *list_runs* returns the active and the queued runs.

    A run of an agent with `unheard_seconds` is cancelled if somebody has heard it, and then nobody hears it for this
    time. The time is not measured while the run is queued or has an open question.

    A request of AG-UI owns its run. An orphan is a run whose last owner has ended before it. It is cancelled when the
    next chat is logged, or `agui_orphan_seconds` after that end if nobody hears it then.
    """

    channel: Channel
    host: SessionHost
    list_runs: Callable[[], list[ActiveRun]]
    _requests: Counter[str] = attrs.Factory(Counter)  # that wait, by run
    _heard_run_ids: set[str] = attrs.Factory(set)  # runs with a listener that has left
    _timers: dict[str, asyncio.TimerHandle] = attrs.Factory(dict)  # by run
    _owners: Counter[str] = attrs.Factory(Counter)  # requests, by run
    _orphans: dict[str, asyncio.TimerHandle] = attrs.Factory(dict)  # by run
    _has_ended: bool = False

    def is_heard(self, run_id: str) -> bool:
        """Return whether somebody hears a run now."""
        if run_id in self._requests:
            return True
        return any(not sub.connection.is_closed and sub.covers(run_id) for sub in self.channel.subscriptions)

    @contextmanager
    def hear(self, run_id: str) -> Iterator[None]:
        """Within the context, a request waits for the run."""
        self._requests[run_id] += 1
        try:
            yield
        finally:
            self._requests[run_id] -= 1
            if not self._requests[run_id]:
                del self._requests[run_id]
            if (run := self._find_run(run_id)) is not None:
                self._note_loss(run)

    def note_unsubscription(self, sub: Subscription) -> None:
        """React to the end of a subscription."""
        for run in self.list_runs():
            if sub.covers(run.id):
                self._note_loss(run)

    def note_start(self, run: ActiveRun) -> None:
        """Begin to measure the time of a run that was heard in the queue, if nobody hears it now."""
        self._measure(run)

    def note_questions(self) -> None:
        """Measure the times anew, because a question was asked or closed."""
        for run in self.list_runs():
            self._measure(run)

    def forget(self, run_id: str) -> None:
        """Forget a run that has ended."""
        self._heard_run_ids.discard(run_id)
        _cancel_timer(self._timers, run_id)
        _cancel_timer(self._orphans, run_id)

    def end(self) -> None:
        """Cancel no run from now on: the hub goes down, and leaves the queued runs to its next start."""
        self._has_ended = True
        for timers in (self._timers, self._orphans):
            for timer in timers.values():
                timer.cancel()
            timers.clear()

    def _find_run(self, run_id: str) -> ActiveRun | None:
        return next((run for run in self.list_runs() if run.id == run_id), None)

    # --- orphans ----------------------------------------------------------------------------------------------------

    def own(self, run_id: str) -> None:
        """Let a request own a run until disown(). The run is no orphan any more."""
        self._owners[run_id] += 1
        _cancel_timer(self._orphans, run_id)

    def disown(self, run_id: str, *, makes_orphan: bool) -> None:
        """End an ownership. With *makes_orphan*, the run is an orphan now, unless it has ended or has another owner."""
        self._owners[run_id] -= 1
        if self._owners[run_id]:
            return
        del self._owners[run_id]
        if makes_orphan and not self._has_ended and self._find_run(run_id) is not None:
            loop = asyncio.get_running_loop()
            self._orphans[run_id] = loop.call_later(self.host.limits.agui_orphan_seconds, self._end_orphan, run_id)

    def list_orphans(self) -> list[ActiveRun]:
        return [run for run in self.list_runs() if run.id in self._orphans]

    def _end_orphan(self, run_id: str) -> None:
        del self._orphans[run_id]
        run = self._find_run(run_id)
        if run is not None and not self.is_heard(run_id):
            run.stop("cancelled")

    # --- unheard_seconds --------------------------------------------------------------------------------------------

    def _note_loss(self, run: ActiveRun) -> None:
        """Note that a listener of a run has left."""
        self._heard_run_ids.add(run.id)
        self._measure(run)

    def _measure(self, run: ActiveRun) -> None:
        """Measure the time of a run from now on, if it was heard before and nobody hears it now."""
        seconds = run.agent.marks.unheard_seconds if run.agent is not None else None
        is_measured = run.state is not RunState.QUEUED and run.id in self._heard_run_ids
        if seconds is None or not is_measured or self._has_ended:
            return
        _cancel_timer(self._timers, run.id)
        if not self.is_heard(run.id):
            self._timers[run.id] = asyncio.get_running_loop().call_later(seconds, self._end_unheard, run)

    def _end_unheard(self, run: ActiveRun) -> None:
        del self._timers[run.id]
        if not run.questions.open_by_id and not self.is_heard(run.id):  # else the next change measures anew
            run.stop("cancelled")


def _cancel_timer(timers: dict[str, asyncio.TimerHandle], run_id: str) -> None:
    if (timer := timers.pop(run_id, None)) is not None:
        timer.cancel()
