"""Find the function of an agent file, pass it its arguments, and iterate over its output."""

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
from typing import Any, Literal

from hub.hosting.contract import Message, Run

END_OF_OUTPUT = object()


Argument = Literal["run", "message"]


class ReturnedNone:
    """The output of a function that returned None, as a function without `return` does. The hub refuses it."""


class LoadError(Exception):
    """An agent file cannot be used; the message is one line.

    *public_message* is the message for clients: it has no text of an exception, which may hold secrets.
    """

    def __init__(self, message: str, public_message: str | None = None) -> None:
        super().__init__(message)
        self.public_message = public_message or message


def find_function(module: ModuleType, path: Path) -> FunctionType:
    """Return the function of an agent file.

    The function has the decorator @agent, else the name of the file, else it is the only public function. The first of
    these rules that matches a function decides. Raises LoadError if no rule matches, or if several functions match.
    """
    functions = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__
    }
    stem = re.sub(r"\W", "_", path.stem)
    decorated_functions = {value for value in functions.values() if hasattr(value, "__hubbub__")}
    public_functions = {value for name, value in functions.items() if not name.startswith("_")}
    for candidates in (decorated_functions, {functions[stem]} if stem in functions else set(), public_functions):
        if len(candidates) == 1:
            return candidates.pop()
        if candidates:
            break
    problem = (
        "several functions could be the agent"
        if decorated_functions or public_functions
        else "no function could be the agent"
    )
    advice = f"name one {stem}, or decorate only one with @agent (from hub import agent)"
    raise LoadError(f"{path.name}: {problem}; {advice}")


def bind_arguments(path: Path, function: FunctionType) -> tuple[Callable[[Run], Any], bool]:
    """Return a function that calls *function* for a run, and whether *function* has the run as an argument.

    Raises LoadError for a required parameter that is neither the run nor the message.
    """
    positional: list[Argument] = []
    by_name: dict[str, Argument] = {}
    for parameter in inspect.signature(function).parameters.values():
        argument = _choose_argument(parameter)
        if argument is None:
            if parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_KEYWORD,
                parameter.VAR_POSITIONAL,
            ):
                source = f"{path.name} line {function.__code__.co_firstlineno}: {function.__name__}()"
                raise LoadError(
                    f"{source} has a parameter {parameter.name!r}; "
                    "it may only have message: str and run: Run, or parameters with a default"
                )
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(argument)
        else:
            by_name[parameter.name] = argument

    def call(run: Run) -> Any:
        values = {"run": run, "message": run.message}
        return function(
            *[values[argument] for argument in positional],
            **{name: values[argument] for name, argument in by_name.items()},
        )

    return call, "run" in (*positional, *by_name.values())


def _choose_argument(parameter: inspect.Parameter) -> Argument | None:
    """Return the argument for a parameter, or None if the parameter is neither the run nor the message.

    The name or the annotation of the parameter decides. The annotation str counts only if there is no default.
    """
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return None
    annotation = parameter.annotation
    if annotation is Run or annotation in ("Run", "hub.Run") or parameter.name == "run":
        return "run"
    is_required = parameter.default is parameter.empty
    if parameter.name == "message" or is_required and (annotation is str or annotation == "str"):
        return "message"
    return None


async def iterate_async(call: Callable[[], Any]) -> AsyncGenerator[Any, None]:
    """Yield the outputs of an async function: the items of the iterator that it returns, or its single result."""
    result = call()
    if isinstance(result, Awaitable):
        result = await result
    if not isinstance(result, AsyncIterable):
        with closing(_iterate_result(result)) as outputs:
            for output in outputs:
                yield output
        return
    try:
        async for output in result:
            yield output
    finally:
        close = getattr(result, "aclose", None)
        if close is not None:
            await close()


def iterate_plain(call: Callable[[], Any]) -> Iterator[Any]:
    """Yield the outputs of a plain function, in the thread of the function.

    If the function returns an awaitable or an async iterable, the thread runs it in a new event loop. In this loop,
    `run.call` raises AgentError: it needs the event loop of the hub, in which only `async def` functions run.
    """
    result = call()
    if isinstance(result, (Awaitable, AsyncIterable)):
        yield from _iterate_in_own_loop(result)
    else:
        yield from _iterate_result(result)


def _iterate_result(result: Any) -> Generator[Any, None, None]:
    if isinstance(result, Iterable) and not isinstance(result, (str, bytes, bytearray, Mapping, Set)):
        yield from result
    else:
        yield Message(result) if isinstance(result, str) else ReturnedNone() if result is None else result


def _iterate_in_own_loop(result: Any) -> Iterator[Any]:
    outputs = iterate_async(lambda: result)

    async def next_output() -> Any:
        return await anext(outputs, END_OF_OUTPUT)

    with asyncio.Runner() as runner:  # its end closes async generators that have not ended
        while (output := runner.run(next_output())) is not END_OF_OUTPUT:
            yield output
