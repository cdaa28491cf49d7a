"""The agents folder: one file per agent, found by path; a broken one is listed with its error and stops nobody."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import structlog

from hub.errors import AgentBroken, UnknownAgent
from hub.hosting.contract import AgentPaths
from hub.hosting.functions import Broken
from hub.hosting.hosted import Agent
from hub.hosting.importing import is_agent_file, run_import
from hub.hosting.loader import load_file, load_table
from hub.hosting.modules import Modules, Stamp, differ
from hub.ids import describe_bad_id, is_id
from hub.text import cut, to_one_line

log = structlog.get_logger(__name__)

MEND = "mend it, then reload it or restart the hub"


@attrs.define(eq=False, kw_only=True)
class Agents:
    """What the folder holds. Running answers keep the code they began with.

    Where *enter* is false, adapters are checked but not entered: nothing is started, and their agents do not answer.
    *changed* is called when an agent has come, gone, or been loaded again.
    """

    folder: Path
    data: Path
    cache: Path
    enter: bool = True
    changed: Callable[[], None] = lambda: None
    _agents: dict[str, Agent] = attrs.Factory(dict)
    _stacks: dict[str, AsyncExitStack] = attrs.Factory(dict)
    _retired: list[tuple[Agent, AsyncExitStack]] = attrs.Factory(list)  # adapters that may still be answering
    _leaving: set[asyncio.Task[None]] = attrs.Factory(set)  # close() awaits them
    _seen: dict[str, list[tuple[Path, int, int]]] = attrs.Factory(dict)
    _modules: Modules = attrs.field(init=False)
    _imports: dict[str, dict[str, Stamp]] = attrs.Factory(dict)  # of each agent file, the files that it imports
    _beside: dict[str, Stamp] = attrs.Factory(dict)  # what lay beside the agents when one was loaded last
    _one_at_a_time: asyncio.Lock = attrs.Factory(asyncio.Lock)  # two loads of a file would lose one's adapter

    def __attrs_post_init__(self) -> None:
        self._modules = Modules(folder=self.folder)

    async def open(self) -> None:
        """Load every file; raises FileNotFoundError where the folder is missing."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no agents folder {self.folder}: make it, or name another with --agents")
        self._modules.open()
        await self.reload_changed()

    async def close(self) -> None:
        async with self._one_at_a_time:
            stacks = [*self._stacks.values(), *(stack for _, stack in self._retired)]
            self._stacks.clear()
            self._retired.clear()
            for stack in stacks:
                await _leave(stack)
            await asyncio.gather(*self._leaving, return_exceptions=True)
            self._modules.close()

    async def reload_changed(self) -> list[str]:
        """Load what is new or changed, or imports what has changed; drop what is gone; return the ids."""
        async with self._one_at_a_time:
            seen = self._look()
            touched = {name for name in {*seen, *self._seen} if seen.get(name) != self._seen.get(name)}
            touched |= {name for name, files in self._imports.items() if differ(files)} | self._mended()
            await self._renew_all(touched, seen)
        return [to_one_line(name) for name in sorted(touched)]

    def _mended(self) -> set[str]:
        """Return the broken agents, if something that they may lack has come or changed."""
        broken = {name for name, agent in self._agents.items() if agent.error and name in self._imports}
        return broken if broken and self._modules.beside() != self._beside else set()

    async def reload(self, agent_id: str) -> list[str]:
        """Reload one agent, changed or not, and each that imports what has changed of what it imports.

        Drop it if its file is gone. Return the ids of those that existed before or exist now.
        """
        async with self._one_at_a_time:
            seen, before = self._look(), set(self._agents)
            files = {*self._imports.get(agent_id, ()), *await self._imported_by(agent_id, seen.get(agent_id))}
            changed = files & self._modules.changed()
            touched = {agent_id} | {name for name, imports in self._imports.items() if not changed.isdisjoint(imports)}
            touched |= {
                name for name, own in self._seen.items() if not changed.isdisjoint(str(path) for path, *_ in own)
            }
            await self._renew_all(touched, seen)
            return sorted(touched & (before | set(self._agents)))

    async def _renew_all(self, names: set[str], seen: "dict[str, list[tuple[Path, int, int]]]") -> None:
        if not names:
            return
        self._beside = self._modules.beside()
        await run_import(lambda: self._modules.forget(self._modules.changed()))
        for name in sorted(names):
            await self._renew(name, seen.get(name))

    async def _imported_by(self, name: str, files: "list[tuple[Path, int, int]] | None") -> dict[str, Stamp]:
        path = files[0][0] if files else None
        if path is None or path.suffix != ".py":
            return {}
        return await run_import(lambda: self._modules.imported_by(name, path))

    async def _renew(self, name: str, files: "list[tuple[Path, int, int]] | None") -> None:
        imports = await self._imported_by(name, files)
        # The old one answers until the new one is there: no chat meets a gap. A cancelled load changes nothing.
        new, new_stack = await self._load(name, [path for path, _, _ in files]) if files else (None, None)
        old, stack = self._agents.pop(name, None), self._stacks.pop(name, None)
        self._seen.pop(name, None)
        self._imports.pop(name, None)
        if new is not None and files:
            self._agents[name], self._seen[name] = new, files
            if files[0][0].suffix == ".py":
                self._imports[name] = imports
        if new_stack is not None:
            self._stacks[name] = new_stack
        if old is not None and stack is not None:
            self._retired.append((old, stack))
            self.close_if_idle(old)
        self.changed()

    def close_if_idle(self, agent: Agent) -> None:
        """Leave the adapter of a retired agent whose last answer has ended."""
        retired = next((one for one in self._retired if one[0] is agent), None)
        if retired is not None and not agent.running_answers:
            self._retired.remove(retired)
            leaving = asyncio.create_task(_leave(retired[1]), name=f"leave {agent.id}")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def find(self, agent_id: str) -> Agent:
        """Return an agent, also a broken one; raises UnknownAgent."""
        agent = self._agents.get(agent_id)
        if agent is None:
            there = ", ".join(one.id for one in self.all() if not one.error) or "none"
            raise UnknownAgent(f"there is no agent {cut(agent_id, 128)}; there are: {there}", agentId=agent_id)
        return agent

    def get(self, agent_id: str) -> Agent:
        """Return a working agent; raises UnknownAgent or AgentBroken."""
        agent = self.find(agent_id)
        if agent.error:
            raise AgentBroken(f"agent {agent_id} is broken: {agent.public_error}; {MEND}", agentId=agent_id)
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
            if not is_agent_file(path) or not path.is_file():
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # removed since it was listed
            seen.setdefault(path.stem, []).append((path, stat.st_mtime_ns, stat.st_size))
        return seen

    async def _load(self, name: str, paths: list[Path]) -> tuple[Agent, AsyncExitStack | None]:
        """Return the agent, and what closes its adapter where it has an open one."""
        try:
            if not is_id(name):
                raise Broken(describe_bad_id(f"{paths[0].name}: the name"))
            if len(paths) > 1:
                raise Broken(f"{paths[0].name} and {paths[1].name} are both there: keep one")
            if paths[0].suffix == ".py":
                return await run_import(lambda: load_file(name, paths[0])), None
            stack = AsyncExitStack() if self.enter else None
            return await load_table(paths[0], AgentPaths(name, self.data, self.cache), stack), stack
        except Broken as broken:
            return (
                Agent(id=to_one_line(name), error=to_one_line(str(broken)), public_error=to_one_line(broken.told)),
                None,
            )


async def _leave(stack: AsyncExitStack) -> None:
    try:
        await stack.aclose()
    except Exception:
        log.exception("an adapter failed as it was closed")
