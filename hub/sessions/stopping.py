"""Stop the runs of a session: by a command, or to remove their messages."""

from collections.abc import Sequence

from hub.errors import NotRunning
from hub.sessions.run import ActiveRun
from hub.sessions.schedule import Schedule


def cancel_runs(schedule: Schedule, run_id: str | None, with_queue: bool) -> tuple[str, ...]:
    """Stop the active or queued run with *run_id*. Without *run_id*, stop all active runs.

    If *with_queue* is True and *run_id* is None, first stop all queued runs. Return the ids of the stopped runs,
    without a wait for their ends. Raises NotRunning if there is no such run.
    """
    runs = [*(schedule.queued_runs if with_queue or run_id else ()), *schedule.active_runs.values()]
    stoppable = [run for run in runs if not run.has_ended and run_id in (None, run.id)]
    if not stoppable:
        session_id = schedule.channel.id
        raise NotRunning(
            (
                f"run {run_id} is not running in session {session_id}"
                if run_id
                else f"no answer is running in session {session_id}"
            ),
            sessionId=session_id,
            **({"runId": run_id} if run_id else {}),
        )
    for run in stoppable:
        run.stop("cancelled")
    return tuple(run.id for run in stoppable)


async def end_runs(schedule: Schedule, runs: Sequence[ActiveRun]) -> None:
    """Stop runs, and wait until the log holds their ends. Raises StorageUnavailable if the log cannot be written."""
    for run in runs:
        run.stop("cancelled")
    for run in runs:
        while schedule.has_run(run.id):
            if schedule.outbox.has_failed:
                raise schedule.outbox.make_error()
            await schedule.outbox.wait_for_append()
