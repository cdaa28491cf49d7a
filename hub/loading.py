"""The agents folder: one file per agent, found by path; a broken one is listed with its error and stops nobody."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import tomllib
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import msgspec

import hub.adapters
from hub.agent import Marks, Message, Place, Run
from hub.errors import AgentBroken, AgentError, UnknownAgent

ID = re.compile(r"[A-Za-z0-9:@-][A-Za-z0-9._:@-]{0,127}")


class Broken(Exception):
    """Why an agent file cannot be used, in one line."""


@attrs.define(eq=False)
class Agent:
    """Something that answers.

    *answer* is an async generator over a run, for async agents; *work* a plain one, iterated in a thread, for the
    others. Both yield what the agent gives, unchecked. *working* counts the answers whose code has not ended.
    """

    id: str
    description: str = ""
    answer: Callable[[Run], AsyncIterator[Any]] | None = None
    work: Callable[[Run], Iterator[Any]] | None = None
    error: str | None = None
    marks: Marks = Marks()
    working: int = 0


@attrs.define(eq=False)
class Agents:
    """What the folder holds. Running answers keep the code they began with."""

    folder: Path
    data: Path
    _agents: dict[str, Agent] = attrs.Factory(dict)
    _stacks: dict[str, AsyncExitStack] = attrs.Factory(dict)
    _seen: dict[str, object] = attrs.Factory(dict)

    async def open(self) -> None:
        """Load every file; raises FileNotFoundError where the folder is missing."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no agents folder {self.folder}: make it, or name another with --agents")
        await self.reload_changed()

    async def close(self) -> None:
        for agent_id in list(self._stacks):
            await self._stacks.pop(agent_id).aclose()

    async def reload_changed(self) -> list[str]:
        """Load what is new or changed, drop what is gone; return the ids."""
        found = self._found()
        seen = {agent_id: [(p, p.stat().st_mtime_ns, p.stat().st_size) for p in paths] for agent_id, paths in found.items()}
        touched = [agent_id for agent_id in {*seen, *self._seen} if seen.get(agent_id) != self._seen.get(agent_id)]
        for agent_id in touched:
            old = self._stacks.pop(agent_id, None)
            if agent_id in found:
                self._agents[agent_id] = await self._load(agent_id, found[agent_id])
            else:
                self._agents.pop(agent_id, None)
            if old is not None:
                await old.aclose()
        self._seen = dict(seen)
        return touched

    def get(self, agent_id: str) -> Agent:
        """Return a working agent; raises UnknownAgent or AgentBroken."""
        agent = self._agents.get(agent_id)
        if agent is None:
            there = ", ".join(one.id for one in self.all() if not one.error) or "none"
            raise UnknownAgent(f"there is no agent {agent_id}; there are: {there}", agentId=agent_id)
        if agent.error:
            raise AgentBroken(f"agent {agent_id} is broken: {agent.error}", agentId=agent_id)
        return agent

    def all(self) -> list[Agent]:
        return [self._agents[agent_id] for agent_id in sorted(self._agents)]

    def describe(self) -> tuple[dict[str, Any], ...]:
        """Return the agents as the wire names them."""
        return tuple(
            {"agentId": one.id, "description": one.description, "status": "broken" if one.error else "ok"}
            | ({"error": one.error} if one.error else {})
            for one in self.all()
        )

    def _found(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (".py", ".toml") and path.name[0] not in "._":
                found.setdefault(path.stem, []).append(path)
        return found

    async def _load(self, agent_id: str, paths: list[Path]) -> Agent:
        try:
            if not ID.fullmatch(agent_id):
                raise Broken(f"{paths[0].name}: the name is no agent id (1 to 128 of A-Z a-z 0-9 . _ : @ -)")
            if len(paths) > 1:
                raise Broken(f"{paths[0].name} and {paths[1].name} are both there: keep one")
            if paths[0].suffix == ".py":
                return load_file(agent_id, paths[0])
            return await self._load_table(agent_id, paths[0])
        except Broken as broken:
            return Agent(agent_id, error=str(broken))

    async def _load_table(self, agent_id: str, path: Path) -> Agent:
        """Load NAME.toml: an adapter by name, and its options."""
        try:
            table = tomllib.loads(path.read_text())
            kind = table.pop("adapter", None)
            description = str(table.pop("description", ""))
            marks = {key: table.pop(key) for key in attrs.fields_dict(Marks) if key in table}
            module = _adapter(path.name, kind)
            options = _options(path.name, table, module.Options)
            stack = AsyncExitStack()
            answer = await stack.enter_async_context(module.open(options, Place(agent_id, self.data)))
            self._stacks[agent_id] = stack
            return Agent(agent_id, description, answer=answer, marks=msgspec.convert(marks, Marks))
        except (ValueError, AgentError, OSError) as wrong:
            raise Broken(f"{path.name}: {wrong}") from None


def _adapter(name: str, kind: object) -> ModuleType:
    kinds = [module.name for module in pkgutil.iter_modules(hub.adapters.__path__)]
    kinds = [one for one in kinds if f"{one}" in ADAPTERS]
    if kind not in kinds:
        raise Broken(f'{name}: adapter = "{kind}" is not known; there are: {", ".join(kinds)}')
    try:
        return importlib.import_module(f"hub.adapters.{kind}")
    except ImportError as missing:
        raise Broken(f"{name}: {missing}; install it with: pip install 'hubbub[{kind}]'") from None


ADAPTERS = ("openai_chat",)


def _options(name: str, table: dict[str, Any], kind: type[Any]) -> Any:
    unknown = sorted(table.keys() - attrs.fields_dict(kind).keys())
    if unknown:
        known = ", ".join(attrs.fields_dict(kind))
        raise Broken(f"{name}: unknown key {unknown[0]!r}; there are: {known}")
    return msgspec.convert(table, kind)


def load_file(agent_id: str, path: Path) -> Agent:
    """Load NAME.py; raises Broken with one line."""
    try:
        module = _import(agent_id, path)
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # SystemExit too: a file that exits must not end the hub
        raise Broken(_one_line(path, error)) from None
    name, function = _function(module, path)
    marks = getattr(function, "__hubbub__", Marks())
    said = (module.__doc__ or function.__doc__ or "").strip().partition("\n")[0]
    arguments = _arguments(path, name, function)
    agent = Agent(agent_id, said, marks=marks)
    if inspect.isasyncgenfunction(function):
        agent.answer = lambda run: function(**arguments(run))
    elif inspect.iscoroutinefunction(function):
        agent.answer = lambda run: _awaited(function(**arguments(run)))
    else:
        agent.work = lambda run: _called(function, arguments(run))
    return agent


def _import(agent_id: str, path: Path) -> ModuleType:
    # By path, under a name of its own: `import agents` stays what an agent file expects it to be.
    name = f"hubbub_agents.{agent_id}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Python trusts a .pyc by seconds and size: a quick edit of the same length would be missed.
    code = compile(path.read_bytes(), str(path), "exec")
    sys.modules[name] = module
    exec(code, module.__dict__)
    return module


def _one_line(path: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{path.name} line {error.lineno}: {error.msg}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    where = f"{path.name} line {lines[-1]}" if lines else path.name
    return f"{where}: {type(error).__name__}: {error}".replace("\n", " ")[:300]


def _function(module: ModuleType, path: Path) -> tuple[str, Callable[..., Any]]:
    own = {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    }
    marked = [name for name, value in own.items() if hasattr(value, "__hubbub__")]
    stem = path.stem.replace("-", "_").replace(".", "_")
    public = [name for name in own if not name.startswith("_")]
    for names in (marked, [stem] if stem in own else [], public):
        if len(names) == 1:
            return names[0], own[names[0]]
        if names:
            break
    raise Broken(f"{path.name}: which function answers? Name it {stem}, or mark it with @agent (from hub import agent)")


def _arguments(path: Path, name: str, function: Callable[..., Any]) -> Callable[[Run], dict[str, Any]]:
    wanted = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "run" or parameter.annotation in (Run, "Run"):
            wanted.append((parameter.name, True))
        elif parameter.name == "message" or parameter.annotation in (str, "str"):
            wanted.append((parameter.name, False))
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            raise Broken(f"{path.name}: {name}() wants {parameter.name!r}; it may take message: str and run: Run")
    return lambda run: {name: run if is_run else run.message for name, is_run in wanted}


async def _awaited(answer: Any) -> AsyncIterator[Any]:
    given = await answer
    if hasattr(given, "__aiter__"):
        if hasattr(given, "aclose"):
            async with aclosing(given):
                async for piece in given:
                    yield piece
        else:
            async for piece in given:
                yield piece
    else:
        yield Message(given) if isinstance(given, str) else given


def _called(function: Callable[..., Any], arguments: dict[str, Any]) -> Iterator[Any]:
    given = function(**arguments)
    if isinstance(given, str):
        yield Message(given)
    elif hasattr(given, "__iter__"):
        yield from given
    else:
        yield given
