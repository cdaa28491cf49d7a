"""Call functions in forked children, for example to release the hub's descriptors, which a fork copies."""

import os
from collections.abc import Callable, Iterable

_actions: dict[object, Callable[[], None]] = {}


def call_in_children(action: Callable[[], None]) -> Callable[[], None]:
    """Call *action* in each child that is forked from now on, at its start. *action* must not raise.

    Return a function that removes *action*: later children do not call it.
    """
    key = object()
    _actions[key] = action

    def remove() -> None:
        del _actions[key]

    return remove


def replace_with_null(descriptors: Iterable[int]) -> None:
    """Point descriptors at the null device. No other file gets their numbers, so it is safe to close them later."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _run_actions() -> None:
    for action in [*_actions.values()]:
        action()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_run_actions)
