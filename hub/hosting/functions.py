"""The function of an agent file: which one it is, what it wants, and what it gives."""

import asyncio
import inspect
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Set,
)
from contextlib import closing
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from hub.hosting.contract import Message, Run

OVER = object()


class ReturnedNone:
    """Given in the place of a None that a function returned, as one without a `return` does; see hub.hosting.faults."""


class Broken(Exception):
    """Why an agent file cannot be used, in one line; *told* is the line for clients, who see no exception's text."""

    def __init__(self, line: str, told: str | None = None) -> None:
        super().__init__(line)
        self.told = told or line


def find(module: ModuleType, path: Path) -> FunctionType:
    own = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__
    }
    stem = re.sub(r"\W", "_", path.stem)
    marked = {value for value in own.values() if hasattr(value, "__hubbub__")}
    public = {value for name, value in own.items() if not name.startswith("_")}
    for chosen in (marked, {own[stem]} if stem in own else set(), public):
        if len(chosen) == 1:
            return chosen.pop()
        if chosen:
            break
    found = "two functions or more could answer" if marked or public else "no function is there to answer"
    raise Broken(f"{path.name}: {found}; name one {stem}, or mark one with @agent (from hub import agent)")


def caller(path: Path, function: FunctionType) -> tuple[Callable[[Run], Any], bool]:
    """Return what calls *function* with what its parameters ask for, and whether they ask for the run."""
    first: list[bool] = []  # whether the run is wanted, or the message
    named: dict[str, bool] = {}
    for parameter in inspect.signature(function).parameters.values():
        wants_run = _wants_run(parameter)
        if wants_run is None:
            if parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                about = f"{path.name} line {function.__code__.co_firstlineno}: {function.__name__}()"
                raise Broken(f"{about} wants {parameter.name!r}; it may take message: str and run: Run")
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            first.append(wants_run)
        else:
            named[parameter.name] = wants_run

    def call(run: Run) -> Any:
        return function(
            *[run if wants_run else run.message for wants_run in first],
            **{name: run if wants_run else run.message for name, wants_run in named.items()},
        )

    return call, any((*first, *named.values()))


def _wants_run(parameter: inspect.Parameter) -> bool | None:
    """Return True for the run, False for the message, None for neither: by name, else by type where it is required."""
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return None
    kind = parameter.annotation
    if kind is Run or kind in ("Run", "hub.Run") or parameter.name == "run":
        return True
    required = parameter.default is parameter.empty
    if parameter.name == "message" or required and (kind is str or kind == "str"):
        return False
    return None


async def answered(call: Callable[[], Any]) -> AsyncGenerator[Any, None]:
    """Yield what an async function gives: a text, several pieces, or what is neither, as it is."""
    given = call()
    if isinstance(given, Awaitable):
        given = await given
    if not isinstance(given, AsyncIterable):
        with closing(_whole(given)) as pieces:
            for piece in pieces:
                yield piece
        return
    try:
        async for piece in given:
            yield piece
    finally:
        close = getattr(given, "aclose", None)
        if close is not None:
            await close()


def worked(call: Callable[[], Any]) -> Iterator[Any]:
    """Yield what a plain function gives, in its thread.

    Where that is something to await, it gets a loop of its own in this thread; `run.call` needs the hub's, `async def`.
    """
    given = call()
    if isinstance(given, (Awaitable, AsyncIterable)):
        yield from _in_own_loop(given)
    else:
        yield from _whole(given)


def _whole(given: Any) -> Generator[Any, None, None]:
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes, bytearray, Mapping, Set)):
        yield from given
    else:
        yield Message(given) if isinstance(given, str) else ReturnedNone() if given is None else given


def _in_own_loop(given: Any) -> Iterator[Any]:
    pieces = answered(lambda: given)

    async def following() -> Any:
        return await anext(pieces, OVER)

    with asyncio.Runner() as runner:  # it closes the async generators that it has begun
        while (piece := runner.run(following())) is not OVER:
            yield piece
