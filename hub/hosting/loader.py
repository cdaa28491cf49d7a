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
from hub.extras import make_install_command
from hub.hosting.contract import Adapter, AgentPaths, AnswerFunction, Marks
from hub.hosting.functions import LoadError, bind_arguments, find_function, iterate_async, iterate_plain
from hub.hosting.hosted import Agent
from hub.hosting.importing import run_import
from hub.hosting.modules import PACKAGE
from hub.plugins import PluginError, find_plugins, load_plugin, plugin_error
from hub.text import suggest_name, to_one_line

# The adapters of the hub, by kind. Other packages add adapters with entry points of the group `hubbub.adapters`.
ADAPTER_MODULES = {"openai_chat": "hub.adapters.openai_chat"}


@attrs.frozen(kw_only=True)
class CommonKeys(Marks):
    """The keys that a TOML file may have with every adapter."""

    description: str = ""

    @property
    def marks(self) -> Marks:
        return Marks(**{key: getattr(self, key) for key in attrs.fields_dict(Marks)})


async def load_toml_agent(path: Path, paths: AgentPaths, stack: AsyncExitStack | None) -> Agent:
    """Load NAME.toml, which names an adapter and holds the options for it. Raises LoadError.

    Closing *stack* closes the adapter. If *stack* is None, the options are only checked, and the agent cannot answer.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # accepts a byte order mark, which Windows writes
        kind = table.pop("adapter", None)
        adapter = await run_import(lambda: _find_adapter(path.name, kind))
        keys = {key: table.pop(key) for key in attrs.fields_dict(CommonKeys) if key in table}
        common = msgspec.convert(keys, CommonKeys)
        options = _convert_options(path.name, table, adapter.Options)
        takes_tools = _takes_tools(adapter, options)
        marks = common.marks if "tools" in keys else attrs.evolve(common.marks, tools=takes_tools)
        agent = Agent(id=paths.agent, description=to_one_line(common.description), marks=marks, source=path.name)
        if stack is not None:
            answer = await stack.enter_async_context(adapter.open(options, paths))
            agent.async_function = answer if marks.tools or not takes_tools else _hide_tools(answer)
        elif hasattr(adapter, "check"):
            adapter.check(options)
    except (ValueError, AgentError) as error:
        raise LoadError(f"{path.name}: {error}") from None
    except LoadError:
        raise
    except Exception as error:
        raise _load_error(path, error) from None
    return agent


def _takes_tools(adapter: Adapter, options: Any) -> bool:
    """Return whether an agent of an adapter takes the tools of clients, unless its TOML file says otherwise."""
    takes_tools = getattr(adapter, "takes_tools", None)
    return takes_tools is not None and bool(takes_tools(options))


def _hide_tools(answer: AnswerFunction) -> AnswerFunction:
    """Return an answer function without the tools of clients, for an agent whose TOML file has `tools = false`."""
    return lambda run: answer(attrs.evolve(run, request=attrs.evolve(run.request, tools=(), tool_choice=None)))


def _find_adapter(name: str, kind: object) -> Adapter:
    """Return the adapter of a kind. Raises LoadError, whose message begins with *name*, the name of the agent file."""
    plugins = find_plugins("hubbub.adapters", frozenset(ADAPTER_MODULES))
    kinds = sorted([*ADAPTER_MODULES, *plugins])
    if not isinstance(kind, str) or kind not in kinds:
        problem = "the key `adapter` is missing" if kind is None else f"there is no adapter {kind!r}"
        raise LoadError(f"{name}: {problem}; the adapters are: {', '.join(kinds)}")
    try:
        if kind in plugins:
            return _load_adapter_plugin(plugins[kind])
        return cast(Adapter, importlib.import_module(ADAPTER_MODULES[kind]))
    except PluginError as error:
        public_message = f"{name}: the adapter {kind!r} cannot be used; `hubbub agents` shows the reason"
        raise LoadError(f"{name}: {error}", public_message) from None
    except ImportError as error:
        raise LoadError(f"{name}: {error}; install it with: {make_install_command(kind)}") from None


def _load_adapter_plugin(point: EntryPoint) -> Adapter:
    """Import the adapter of another package, and check its names; raises PluginError."""
    adapter = load_plugin(point)
    options = getattr(adapter, "Options", None)
    if not (isinstance(options, type) and attrs.has(options)):
        raise plugin_error(point, "is no adapter: it lacks an attrs class `Options`")
    if not callable(getattr(adapter, "open", None)):
        raise plugin_error(point, "is no adapter: it lacks a function `open`")
    return cast(Adapter, adapter)


def _convert_options(name: str, table: dict[str, Any], options_class: type[Any]) -> Any:
    """Return the options of a table; raises LoadError for an unknown key, ValueError for a bad value."""
    options = attrs.fields_dict(options_class)
    names = ["adapter", *attrs.fields_dict(CommonKeys), *options]
    for unknown in sorted(table.keys() - options.keys()):
        raise LoadError(f"{name}: unknown key {unknown!r}{suggest_name(unknown, names)}")
    return msgspec.convert(table, options_class)


def load_python_agent(agent_id: str, path: Path) -> Agent:
    """Execute NAME.py, and return its agent; raises LoadError. Call this function with run_import()."""
    try:
        module = _import(agent_id, path)
        function = find_function(module, path)
        call, needs_run = bind_arguments(path, function)
    except (KeyboardInterrupt, LoadError):
        raise
    except BaseException as error:  # SystemExit too: an agent file must not end the hub
        raise _load_error(path, error) from None
    description = str(module.__doc__ or function.__doc__ or "").strip().partition("\n")[0]
    target = inspect.unwrap(function)  # a decorator may wrap an `async def` in a plain function
    source = f"{path.name}:{getattr(target, '__code__', function.__code__).co_firstlineno}"
    marks = getattr(function, "__hubbub__", Marks())
    agent = Agent(
        id=agent_id, description=to_one_line(description), marks=marks, source=source, needs_history=needs_run
    )
    if inspect.isasyncgenfunction(function):
        agent.async_function = call
    elif any(map(inspect.iscoroutinefunction, (function, target))) or inspect.isasyncgenfunction(target):
        agent.async_function = lambda run: iterate_async(lambda: call(run))
    else:
        agent.plain_function = lambda run: iterate_plain(lambda: call(run))
    return agent


def _import(agent_id: str, path: Path) -> ModuleType:
    # Child processes import the module under this name, whatever the name of the folder.
    name = f"{PACKAGE}.{agent_id}"
    # Do not use the .pyc, and delete it, so that child processes do not use it. Python compares it with the file only
    # by seconds and size, and so misses a quick edit of the same length.
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    Path(cache_from_source(str(path))).unlink(missing_ok=True)
    spec = spec_from_file_location(name, path)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        # Another load may have replaced the module: a load continues in its thread after its caller was cancelled.
        if sys.modules.get(name) is module:
            del sys.modules[name]
        raise
    setattr(sys.modules[PACKAGE], agent_id, module)
    return module


def _load_error(path: Path, error: BaseException) -> LoadError:
    """Return the LoadError for an exception of a load.

    The text of an exception may hold secrets, so clients get it only for a syntax error of the agent file.
    """
    if isinstance(error, SyntaxError) and error.filename == str(path) and error.lineno:
        return LoadError(f"{path.name} line {error.lineno}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    source = f"{path.name} line {lines[-1]}" if lines else path.name
    if lines and (last_path := Path(frames[-1].filename)) != path and last_path.parent == path.parent:
        source += f", in {last_path.name} line {frames[-1].lineno}"
    public_message = f"{source}: {type(error).__name__}"
    return LoadError(f"{public_message}: {error}", f"{public_message}; `hubbub agents` shows the reason")
