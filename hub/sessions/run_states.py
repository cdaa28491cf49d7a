"""The states of a run, and the changes between them."""

from enum import Enum, auto


class RunState(Enum):
    """The state of a run. The docstring of ActiveRun draws the edges."""

    QUEUED = auto()
    STARTING = auto()
    RUNNING = auto()
    ENDING = auto()
    ENDED = auto()


STATE_EDGES = {
    RunState.QUEUED: {RunState.STARTING, RunState.ENDED},
    RunState.STARTING: {RunState.RUNNING, RunState.ENDED},
    RunState.RUNNING: {RunState.ENDING, RunState.ENDED},
    RunState.ENDING: {RunState.ENDED},
    RunState.ENDED: set(),
}
