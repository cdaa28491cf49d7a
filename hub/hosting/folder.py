"""The agents folder: one file for each agent. A broken agent is listed with its error, and harms no other agent."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import structlog

from hub.errors import AgentBroken, UnknownAgent
from hub.hosting.contract import AgentPaths
from hub.hosting.functions import LoadError
from hub.hosting.hosted import Agent
from hub.hosting.importing import is_agent_file, run_import
from hub.hosting.loader import load_python_agent, load_toml_agent
from hub.hosting.modules import AuthorModules, FileStamp, have_changed
from hub.ids import describe_bad_id, is_id
from hub.text import cut, to_one_line

log = structlog.get_logger(__name__)


class AgentFile(NamedTuple):
    """One file of an agent; a change of the file changes *mtime_ns* or *size*."""

    path: Path
    mtime_ns: int
    size: int


AgentFiles = dict[str, list[AgentFile]]  # by the name of the agent; two files of one name are an error


@attrs.define(eq=False, kw_only=True)
class Agents:
    """The agents of the folder. A reload does not change the code of running answers.

    If *opens_adapters* is False, adapters only check their options, and their agents cannot answer. *on_change* is
    called when an agent was added, removed or reloaded.
    """

    folder: Path
    data: Path
    cache: Path
    opens_adapters: bool = True
    on_change: Callable[[], None] = lambda: None
    _agents: dict[str, Agent] = attrs.Factory(dict)
    _stacks: dict[str, AsyncExitStack] = attrs.Factory(dict)  # by agent id; each closes an open adapter
    # Reloaded or removed agents with running answers, and their open adapters.
    _retired_agents: list[tuple[Agent, AsyncExitStack]] = attrs.Factory(list)
    _close_tasks: set[asyncio.Task[None]] = attrs.Factory(set)  # close() awaits these tasks
    _files: AgentFiles = attrs.Factory(dict)
    _modules: AuthorModules = attrs.field(init=False)
    _imports: dict[str, dict[str, FileStamp]] = attrs.Factory(dict)  # for each .py agent, the files that it imports
    _nearby_files: dict[str, FileStamp] = attrs.Factory(dict)  # as they were at the last load
    _lock: asyncio.Lock = attrs.Factory(asyncio.Lock)  # two loads at a time would lose an open adapter

    def __attrs_post_init__(self) -> None:
        self._modules = AuthorModules(folder=self.folder)

    async def open(self) -> None:
        """Load all agents; raises FileNotFoundError if the folder is missing."""
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"there is no agents folder {self.folder}: make one with hubbub init, or name another with --agents"
            )
        self._modules.open()
        await self.reload_changed_agents()

    async def close(self) -> None:
        async with self._lock:
            stacks = [*self._stacks.values(), *(stack for _, stack in self._retired_agents)]
            self._stacks.clear()
            self._retired_agents.clear()
            for stack in stacks:
                await _close_adapter(stack)
            await asyncio.gather(*self._close_tasks, return_exceptions=True)
            self._modules.close()

    async def reload_changed_agents(self) -> list[str]:
        """Load new agents, reload changed agents, and drop agents without a file. Return the ids of all these agents.

        An agent is changed if its file changed, or if a file that it imports changed. A broken .py agent is reloaded,
        too, if a file changed that it may try to import: this change may mend the agent.
        """
        async with self._lock:
            files = self._list_files()
            names = {name for name in {*files, *self._files} if files.get(name) != self._files.get(name)}
            names |= {
                name for name, imports in self._imports.items() if have_changed(imports)
            } | self._find_fixable_agents()
            await self._reload_all(names, files)
        return [to_one_line(name) for name in sorted(names)]

    def _find_fixable_agents(self) -> set[str]:
        """Return the names of all broken .py agents if a file changed that they may try to import, else no names."""
        broken_names = {name for name, agent in self._agents.items() if agent.error and name in self._imports}
        return broken_names if broken_names and self._modules.list_nearby_files() != self._nearby_files else set()

    async def reload(self, agent_id: str) -> list[str]:
        """Reload one agent, changed or not.

        If a file that this agent imports has changed, also reload the other agents that import the file or are defined
        in it. Drop each of these agents that no longer has a file. Return the ids of the loaded and the dropped agents.
        """
        async with self._lock:
            files, ids_before = self._list_files(), set(self._agents)
            imports = {*self._imports.get(agent_id, ()), *await self._find_imports(agent_id, files.get(agent_id))}
            changed_paths = imports & self._modules.list_changed_files()
            names = {agent_id} | {name for name, paths in self._imports.items() if not changed_paths.isdisjoint(paths)}
            names |= {
                name
                for name, agent_files in self._files.items()
                if not changed_paths.isdisjoint(str(file.path) for file in agent_files)
            }
            await self._reload_all(names, files)
            return sorted(names & (ids_before | set(self._agents)))

    async def _reload_all(self, names: set[str], files: AgentFiles) -> None:
        if not names:
            return
        self._nearby_files = self._modules.list_nearby_files()
        await run_import(lambda: self._modules.forget(self._modules.list_changed_files()))
        for name in sorted(names):
            await self._reload(name, files.get(name))

    async def _find_imports(self, name: str, files: list[AgentFile] | None) -> dict[str, FileStamp]:
        path = files[0].path if files else None
        if path is None or path.suffix != ".py":
            return {}
        return await run_import(lambda: self._modules.find_imports(name, path))

    async def _reload(self, name: str, files: list[AgentFile] | None) -> None:
        imports = await self._find_imports(name, files)
        # The old agent stays listed during the load, so no chat is refused. A cancelled load changes nothing.
        new_agent, new_stack = await self._load(name, [file.path for file in files]) if files else (None, None)
        old_agent, old_stack = self._agents.pop(name, None), self._stacks.pop(name, None)
        self._files.pop(name, None)
        self._imports.pop(name, None)
        if new_agent is not None and files:
            self._agents[name], self._files[name] = new_agent, files
            if files[0].path.suffix == ".py":
                self._imports[name] = imports
        if new_stack is not None:
            self._stacks[name] = new_stack
        if old_agent is not None and old_stack is not None:
            self._retired_agents.append((old_agent, old_stack))
            self.close_if_idle(old_agent)
        self.on_change()

    def close_if_idle(self, agent: Agent) -> None:
        """Close the adapter of *agent* if the agent was reloaded or removed, and no answer of it runs."""
        pair = next((entry for entry in self._retired_agents if entry[0] is agent), None)
        if pair is not None and not agent.running_answers:
            self._retired_agents.remove(pair)
            task = asyncio.create_task(_close_adapter(pair[1]), name=f"close the adapter of {agent.id}")
            self._close_tasks.add(task)
            task.add_done_callback(self._close_tasks.discard)

    def find(self, agent_id: str) -> Agent:
        """Return an agent, working or broken; raises UnknownAgent."""
        agent = self._agents.get(agent_id)
        if agent is None:
            raise self.make_unknown_error(agent_id)
        return agent

    def make_unknown_error(self, agent_id: str, is_visible: Callable[[str], bool] = lambda _: True) -> UnknownAgent:
        """Return the error for an agent that does not exist. It lists the working agents that are visible."""
        working_ids = [agent.id for agent in self.all() if not agent.error and is_visible(agent.id)]
        names = ", ".join(working_ids) or "none"
        return UnknownAgent(f"there is no agent {cut(agent_id, 128)}; there are: {names}", agentId=agent_id)

    def has(self, agent_id: str) -> bool:
        return agent_id in self._agents

    def get_working(self, agent_id: str) -> Agent:
        """Return a working agent; raises UnknownAgent or AgentBroken."""
        agent = self.find(agent_id)
        if agent.error:
            advice = "correct its file, then reload the agent or restart the hub"
            raise AgentBroken(f"agent {agent_id} is broken: {agent.public_error}; {advice}", agentId=agent_id)
        return agent

    def all(self) -> list[Agent]:
        return [self._agents[agent_id] for agent_id in sorted(self._agents)]

    def describe(self) -> tuple[dict[str, Any], ...]:
        """Return the agents as JSON for clients."""
        return tuple(agent.describe() for agent in self.all())

    def _list_files(self) -> AgentFiles:
        files: AgentFiles = {}
        for path in sorted(self.folder.glob("*")):
            if not is_agent_file(path) or not path.is_file():
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue  # removed after glob() listed the file
            files.setdefault(path.stem, []).append(AgentFile(path, stat.st_mtime_ns, stat.st_size))
        return files

    async def _load(self, name: str, paths: list[Path]) -> tuple[Agent, AsyncExitStack | None]:
        """Return the agent, and the stack that closes its adapter. The stack is None if the agent has no open adapter.

        If the load fails, the agent is broken.
        """
        try:
            if not is_id(name):
                raise LoadError(describe_bad_id(f"{paths[0].name}: the name"))
            if len(paths) > 1:
                raise LoadError(f"{paths[0].name} and {paths[1].name} define the same agent: keep one")
            if paths[0].suffix == ".py":
                return await run_import(lambda: load_python_agent(name, paths[0])), None
            stack = AsyncExitStack() if self.opens_adapters else None
            return await load_toml_agent(paths[0], AgentPaths(name, self.data, self.cache), stack), stack
        except LoadError as error:
            message, public_message = to_one_line(str(error)), to_one_line(error.public_message)
            return Agent(id=to_one_line(name), error=message, public_error=public_message), None


async def _close_adapter(stack: AsyncExitStack) -> None:
    try:
        await stack.aclose()
    except Exception:
        log.exception("an adapter raised an exception when the hub closed it")
