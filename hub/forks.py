"""What a forked child of the hub gives up: multiprocessing and os.fork() copy every descriptor of the hub."""

import os
from collections.abc import Callable, Iterable

_actions: dict[object, Callable[[], None]] = {}


def call_in_children(action: Callable[[], None]) -> Callable[[], None]:
    """Call *action* in each child that is forked from now on, before its other code; return what ends that.

    It must not raise.
    """
    key = object()
    _actions[key] = action

    def stop() -> None:
        del _actions[key]

    return stop


def replace_by_null(descriptors: Iterable[int]) -> None:
    """Let go of descriptors without freeing their numbers: objects of the hub that close them close nothing else."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _run_actions() -> None:
    for action in [*_actions.values()]:
        action()


if hasattr(os, "register_at_fork"):  # Windows forks nothing
    os.register_at_fork(after_in_child=_run_actions)
