"""Load one agent: a .py file with a function, or a .toml file with an adapter's options."""

import importlib
import inspect
import sys
import tomllib
import traceback
from contextlib import AsyncExitStack
from importlib.metadata import EntryPoint
from importlib.util import cache_from_source, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import attrs
import msgspec

from hub.errors import AgentError
from hub.hosting.contract import Adapter, AgentPaths, Marks
from hub.hosting.functions import Broken, answered, caller, find, worked
from hub.hosting.hosted import Agent
from hub.hosting.importing import run_import
from hub.hosting.modules import PACKAGE
from hub.plugins import PluginError, find_plugins, load_plugin, plugin_error
from hub.settings import suggest_name
from hub.text import to_one_line

# The hub's own adapters, by kind. Other packages add theirs by entry points of the group `hubbub.adapters`.
ADAPTERS = {"openai_chat": "hub.adapters.openai_chat"}


@attrs.frozen(kw_only=True)
class Common(Marks):
    """The keys of a TOML file that are not its adapter's."""

    description: str = ""

    @property
    def marks(self) -> Marks:
        return Marks(**{key: getattr(self, key) for key in attrs.fields_dict(Marks)})


async def load_table(path: Path, paths: AgentPaths, stack: AsyncExitStack | None) -> Agent:
    """Load NAME.toml, an adapter by name and its options; raises Broken with one line.

    Enter the adapter into *stack*. Without a stack, only check the options: the agent does not answer.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows writes a byte order mark
        kind = table.pop("adapter", None)
        adapter = await run_import(lambda: _adapter(path.name, kind))
        keys = {key: table.pop(key) for key in attrs.fields_dict(Common) if key in table}
        common = msgspec.convert(keys, Common)
        options = _options(path.name, table, adapter.Options)
        agent = Agent(id=paths.agent, description=to_one_line(common.description), marks=common.marks, source=path.name)
        if stack is not None:
            agent.answer = await stack.enter_async_context(adapter.open(options, paths))
        elif hasattr(adapter, "check"):
            adapter.check(options)
    except (ValueError, AgentError) as wrong:
        raise Broken(f"{path.name}: {wrong}") from None
    except Broken:
        raise
    except Exception as error:
        raise _thrown(path, error) from None
    return agent


def _adapter(name: str, kind: object) -> Adapter:
    """Return the adapter of that kind; raises Broken for the agent file *name*."""
    plugins = find_plugins("hubbub.adapters", frozenset(ADAPTERS))
    kinds = sorted([*ADAPTERS, *plugins])
    if not isinstance(kind, str) or kind not in kinds:
        problem = "a key `adapter` is missing" if kind is None else f"there is no adapter {kind!r}"
        raise Broken(f"{name}: {problem}; there are: {', '.join(kinds)}")
    try:
        if kind in plugins:
            return _load_plugin(plugins[kind])
        return cast(Adapter, importlib.import_module(ADAPTERS[kind]))
    except PluginError as error:
        public = f"{name}: the adapter {kind!r} cannot be used; `hubbub agents` says more"
        raise Broken(f"{name}: {error}", public) from None
    except ImportError as missing:
        raise Broken(f"{name}: {missing}; install it with: pip install hubbub[{kind}]") from None


def _load_plugin(point: EntryPoint) -> Adapter:
    """Import an adapter of another package, and check that it fulfils the contract; raises PluginError."""
    adapter = load_plugin(point)
    options = getattr(adapter, "Options", None)
    if not (isinstance(options, type) and attrs.has(options)):
        raise plugin_error(point, "is no adapter: it has no attrs class `Options`")
    if not callable(getattr(adapter, "open", None)):
        raise plugin_error(point, "is no adapter: it has no function `open`")
    return cast(Adapter, adapter)


def _options(name: str, table: dict[str, Any], kind: type[Any]) -> Any:
    known = attrs.fields_dict(kind)
    for unknown in sorted(table.keys() - known.keys()):
        raise Broken(
            f"{name}: unknown key {unknown!r}{suggest_name(unknown, ['adapter', *attrs.fields_dict(Common), *known])}"
        )
    return msgspec.convert(table, kind)


def load_file(agent_id: str, path: Path) -> Agent:
    """Load NAME.py; raises Broken with one line. It executes the file, so call it by run_import()."""
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
    agent = Agent(id=agent_id, description=to_one_line(said), marks=marks, source=source, needs_history=wants_run)
    if inspect.isasyncgenfunction(function):
        agent.answer = call
    elif any(map(inspect.iscoroutinefunction, (function, inner))) or inspect.isasyncgenfunction(inner):
        agent.answer = lambda run: answered(lambda: call(run))
    else:
        agent.work = lambda run: worked(lambda: call(run))
    return agent


def _import(agent_id: str, path: Path) -> ModuleType:
    # Under this name a child process can import it, whatever the folder is called; `agents` is another's name.
    name = f"{PACKAGE}.{agent_id}"
    # Python trusts a .pyc by seconds and size: a quick edit of the same length would be missed, here and in children.
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    Path(cache_from_source(str(path))).unlink(missing_ok=True)
    spec = spec_from_file_location(name, path)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        if sys.modules.get(name) is module:  # a load whose caller was cancelled may still go on beside this one
            del sys.modules[name]
        raise
    setattr(sys.modules[PACKAGE], agent_id, module)
    return module


def _thrown(path: Path, error: BaseException) -> Broken:
    """Return what an exception at load means; its text may hold secrets, and is for the operator alone."""
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        return Broken(f"{path.name} line {error.lineno}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f"{path.name} line {lines[-1]}" if lines else path.name
    if lines and (last := Path(frames[-1].filename)) != path and last.parent == path.parent:
        where += f", in {last.name} line {frames[-1].lineno}"
    told = f"{where}: {type(error).__name__}"
    return Broken(f"{told}: {error}", f"{told}; `hubbub agents` says more")
