"""How the runs of a session are stopped: by people, and to take their answers back."""

from collections.abc import Sequence

from hub.errors import NotRunning
from hub.sessions.run import ActiveRun
from hub.sessions.schedule import Schedule


def cancel(schedule: Schedule, run_id: str | None, queued: bool) -> tuple[str, ...]:
    """Stop one run, or the waiting (where *queued*) and then the running; return their ids.

    Raises NotRunning where there is none. Each says its end when its work has stopped.
    """
    runs = [*(schedule.waiting if queued or run_id else ()), *schedule.running.values()]
    chosen = [run for run in runs if not run.has_ended and run_id in (None, run.id)]
    if not chosen:
        name = schedule.channel.id
        raise NotRunning(
            f"run {run_id} is not running in session {name}" if run_id else f"no answer is running in session {name}",
            sessionId=name,
            **({"runId": run_id} if run_id else {}),
        )
    for run in chosen:
        run.stop("cancelled")
    return tuple(run.id for run in chosen)


async def end(schedule: Schedule, runs: Sequence[ActiveRun]) -> None:
    """Stop runs, and return when their ends are in the log; raises StorageUnavailable where that cannot be."""
    for run in runs:
        run.stop("cancelled")
    for run in runs:
        while schedule.has(run.id):
            if schedule.outbox.has_failed:
                raise schedule.outbox.make_error()
            await schedule.outbox.wait_for_append()
