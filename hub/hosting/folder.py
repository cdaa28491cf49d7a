"""The agents folder: one file per agent, found by path; a broken one is listed with its error and stops nobody."""

import asyncio
import importlib
import inspect
import re
import sys
import tomllib
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import msgspec
import structlog

import hub.adapters
from hub.errors import AgentBroken, AgentError, UnknownAgent
from hub.hosting.contract import Marks, Place, Run
from hub.hosting.functions import Broken, answered, caller, find, worked
from hub.settings import hint

log = structlog.get_logger(__name__)

ID = re.compile(r"[A-Za-z0-9:@-][A-Za-z0-9._:@-]{0,127}")
THREAD_RUNS = 32  # at a time, for an agent that takes a thread for each
MEND = "mend it, then reload it or restart the hub"
LINE = 300  # characters of a description or an error


@attrs.define(eq=False)
class Agent:
    """Something that answers.

    *answer* is an async generator over a run, for async agents; *work* a plain one, iterated in a thread, for the
    others. Both yield what the agent gives, unchecked. *source* is where its function stands, `NAME.py:LINE`.
    *remembers* says that it may look at what was said before, which must be read for it. *error* is for the operator,
    *told* the same for clients. *working* counts the answers whose code has not ended.
    """

    id: str
    description: str = ""
    answer: Callable[[Run], AsyncIterator[Any]] | None = None
    work: Callable[[Run], Iterator[Any]] | None = None
    error: str | None = None
    told: str | None = None
    marks: Marks = Marks()
    source: str = ""
    remembers: bool = True
    working: int = 0

    @property
    def full(self) -> bool:
        """Tell whether it answers as often at a time as it may."""
        most = self.marks.max_runs or (THREAD_RUNS if self.work is not None else None)
        return most is not None and self.working >= most

    def describe(self) -> dict[str, Any]:
        """Return the agent as the wire names it."""
        said = {"agentId": self.id, "description": self.description, "status": "broken" if self.error else "ok"}
        return said | ({"error": self.told} if self.error else {})


@attrs.define(eq=False)
class Agents:
    """What the folder holds. Running answers keep the code they began with.

    Where *enter* is false, adapters are checked but not entered: nothing is started, and their agents do not answer.
    """

    folder: Path
    data: Path
    enter: bool = True
    _agents: dict[str, Agent] = attrs.Factory(dict)
    _stacks: dict[str, AsyncExitStack] = attrs.Factory(dict)
    _retired: list[tuple[Agent, AsyncExitStack]] = attrs.Factory(list)  # adapters that may still be answering
    _seen: dict[str, list[tuple[Path, int, int]]] = attrs.Factory(dict)
    _one_at_a_time: asyncio.Lock = attrs.Factory(asyncio.Lock)  # two loads of a file would lose one's adapter

    async def open(self) -> None:
        """Load every file; raises FileNotFoundError where the folder is missing."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no agents folder {self.folder}: make it, or name another with --agents")
        await self.reload_changed()

    async def close(self) -> None:
        async with self._one_at_a_time:
            stacks = [*self._stacks.values(), *(stack for _, stack in self._retired)]
            self._stacks.clear()
            self._retired.clear()
            for stack in stacks:
                await _leave(stack)

    async def reload_changed(self) -> list[str]:
        """Load what is new or changed, drop what is gone; return the ids."""
        async with self._one_at_a_time:
            seen = self._look()
            touched = sorted(name for name in {*seen, *self._seen} if seen.get(name) != self._seen.get(name))
            for name in touched:
                await self._renew(name, seen.get(name))
            await self._leave_retired()
        return [_line(name) for name in touched]

    async def reload(self, agent_id: str) -> bool:
        """Load an agent's file whether it changed or not, or drop the agent whose file is gone; say if it was or is."""
        async with self._one_at_a_time:
            was = agent_id in self._agents
            await self._renew(agent_id, self._look().get(agent_id))
            await self._leave_retired()
            return was or agent_id in self._agents

    async def _renew(self, name: str, files: "list[tuple[Path, int, int]] | None") -> None:
        stack = self._stacks.pop(name, None)
        # The old one answers until the new one is there: no chat meets a gap.
        new = await self._load(name, [path for path, _, _ in files]) if files else None
        old = self._agents.pop(name, None)
        self._seen.pop(name, None)
        if new is not None and files:
            self._agents[name], self._seen[name] = new, files
        if old is not None and stack is not None:
            self._retired.append((old, stack))

    def find(self, agent_id: str) -> Agent:
        """Return an agent, also a broken one; raises UnknownAgent."""
        agent = self._agents.get(agent_id)
        if agent is None:
            there = ", ".join(one.id for one in self.all() if not one.error) or "none"
            raise UnknownAgent(f"there is no agent {agent_id[:128]}; there are: {there}", agentId=agent_id)
        return agent

    def get(self, agent_id: str) -> Agent:
        """Return a working agent; raises UnknownAgent or AgentBroken."""
        agent = self.find(agent_id)
        if agent.error:
            raise AgentBroken(f"agent {agent_id} is broken: {agent.told}; {MEND}", agentId=agent_id)
        return agent

    def all(self) -> list[Agent]:
        return [self._agents[agent_id] for agent_id in sorted(self._agents)]

    def describe(self) -> tuple[dict[str, Any], ...]:
        """Return the agents as the wire names them."""
        return tuple(one.describe() for one in self.all())

    def _look(self) -> dict[str, list[tuple[Path, int, int]]]:
        """Return the agent files there are, by stem, with what changes when they do."""
        seen: dict[str, list[tuple[Path, int, int]]] = {}
        for path in sorted(self.folder.glob("*")):
            if path.suffix not in (".py", ".toml") or path.name[0] in "._" or not path.is_file():
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # removed since it was listed
            seen.setdefault(path.stem, []).append((path, stat.st_mtime_ns, stat.st_size))
        return seen

    async def _leave_retired(self) -> None:
        for agent, stack in [one for one in self._retired if not one[0].working]:
            self._retired.remove((agent, stack))
            await _leave(stack)

    async def _load(self, name: str, paths: list[Path]) -> Agent:
        try:
            if not ID.fullmatch(name):
                raise Broken(f"{paths[0].name}: the name is no agent id (1 to 128 of A-Z a-z 0-9 . _ : @ -)")
            if len(paths) > 1:
                raise Broken(f"{paths[0].name} and {paths[1].name} are both there: keep one")
            if paths[0].suffix == ".py":
                return load_file(name, paths[0])
            return await self._load_table(name, paths[0])
        except Broken as broken:
            return Agent(_line(name), error=_line(str(broken)), told=_line(broken.told))

    async def _load_table(self, agent_id: str, path: Path) -> Agent:
        """Load NAME.toml: an adapter by name, and its options."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            module = _adapter(path.name, table.pop("adapter", None))
            common = {key: table.pop(key) for key in attrs.fields_dict(Common) if key in table}
            said = msgspec.convert(common, Common)
            options = _options(path.name, table, module.Options)
            agent = Agent(agent_id, _line(said.description), marks=said.marks, source=path.name)
            if self.enter:
                stack = AsyncExitStack()
                agent.answer = await stack.enter_async_context(module.open(options, Place(agent_id, self.data)))
                self._stacks[agent_id] = stack
            elif hasattr(module, "check"):
                module.check(options)
        except (ValueError, AgentError) as wrong:
            raise Broken(f"{path.name}: {wrong}") from None
        except Broken:
            raise
        except Exception as error:
            raise _thrown(path, error) from None
        return agent


@attrs.frozen
class Common(Marks):
    """The keys of a TOML file that are not its adapter's."""

    description: str = ""

    @property
    def marks(self) -> Marks:
        return Marks(**{key: getattr(self, key) for key in attrs.fields_dict(Marks)})


async def _leave(stack: AsyncExitStack) -> None:
    try:
        await stack.aclose()
    except Exception:
        log.exception("an adapter failed as it was closed")


def _adapter(name: str, kind: object) -> ModuleType:
    kinds = _kinds()
    if kind not in kinds:
        wanted = "a key `adapter` is missing" if kind is None else f"there is no adapter {kind!r}"
        raise Broken(f"{name}: {wanted}; there are: {', '.join(kinds)}")
    try:
        return importlib.import_module(f"hub.adapters.{kind}")
    except ImportError as missing:
        raise Broken(f"{name}: {missing}; install it with: pip install hubbub[{kind}]") from None


def _kinds() -> list[str]:
    """Return the adapters, without importing them: what they need may not be installed. Beside them lie helpers."""
    files = [path for folder in hub.adapters.__path__ for path in Path(folder).glob("*.py")]
    offers = re.compile(r"^class Options\b", re.MULTILINE)
    return sorted(path.stem for path in files if offers.search(path.read_text(encoding="utf-8")))


def _options(name: str, table: dict[str, Any], kind: type[Any]) -> Any:
    known = attrs.fields_dict(kind)
    for unknown in sorted(table.keys() - known.keys()):
        raise Broken(f"{name}: unknown key {unknown!r}{hint(unknown, ['adapter', *attrs.fields_dict(Common), *known])}")
    return msgspec.convert(table, kind)


def load_file(agent_id: str, path: Path) -> Agent:
    """Load NAME.py; raises Broken with one line."""
    try:
        module = _import(agent_id, path)
        function = find(module, path)
        call, wants_run = caller(path, function)
    except (KeyboardInterrupt, Broken):
        raise
    except BaseException as error:  # SystemExit too: a file that exits must not end the hub
        raise _thrown(path, error) from None
    said = str(module.__doc__ or function.__doc__ or "").strip().partition("\n")[0]
    inner = inspect.unwrap(function)  # a decorator's plain wrapper around `async def`
    source = f"{path.name}:{getattr(inner, '__code__', function.__code__).co_firstlineno}"
    marks = getattr(function, "__hubbub__", Marks())
    agent = Agent(agent_id, _line(said), marks=marks, source=source, remembers=wants_run)
    if inspect.isasyncgenfunction(function):
        agent.answer = call
    elif any(map(inspect.iscoroutinefunction, (function, inner))) or inspect.isasyncgenfunction(inner):
        agent.answer = lambda run: answered(lambda: call(run))
    else:
        agent.work = lambda run: worked(lambda: call(run))
    return agent


def _import(agent_id: str, path: Path) -> ModuleType:
    # By path, under a name of its own: `import agents` stays what an agent file expects it to be.
    name = f"hubbub_agents.{agent_id}"
    # Python trusts a .pyc by seconds and size: a quick edit of the same length would be missed.
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _thrown(path: Path, error: BaseException) -> Broken:
    """Return what an exception at load means; its text may hold secrets, and is for the operator alone."""
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        return Broken(f"{path.name} line {error.lineno}: {error.msg}")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path.name} line {lines[-1]}" if lines else path.name
    told = f"{where}: {type(error).__name__}"
    return Broken(f"{told}: {error}", f"{told}; `hubbub agents` says more")


def _line(text: str) -> str:
    """Return *text* in one line that JSON can hold."""
    return " ".join(text.encode(errors="replace").decode().split())[:LINE]
