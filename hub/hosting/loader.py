"""Load one agent: a .py file with a function, or a .toml file with an adapter's options."""

import importlib
import inspect
import re
import sys
import tomllib
import traceback
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import msgspec

import hub.adapters
from hub.errors import AgentError
from hub.hosting.contract import Marks, Place
from hub.hosting.functions import Broken, answered, caller, find, worked
from hub.hosting.hosted import Agent, one_line
from hub.settings import hint


@attrs.frozen
class Common(Marks):
    """The keys of a TOML file that are not its adapter's."""

    description: str = ""

    @property
    def marks(self) -> Marks:
        return Marks(**{key: getattr(self, key) for key in attrs.fields_dict(Marks)})


async def load_table(path: Path, place: Place, stack: AsyncExitStack | None) -> Agent:
    """Load NAME.toml, an adapter by name and its options; raises Broken with one line.

    Enter the adapter into *stack*. Without a stack, only check the options: the agent does not answer.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        module = _adapter(path.name, table.pop("adapter", None))
        keys = {key: table.pop(key) for key in attrs.fields_dict(Common) if key in table}
        common = msgspec.convert(keys, Common)
        options = _options(path.name, table, module.Options)
        agent = Agent(place.agent, one_line(common.description), marks=common.marks, source=path.name)
        if stack is not None:
            agent.answer = await stack.enter_async_context(module.open(options, place))
        elif hasattr(module, "check"):
            module.check(options)
    except (ValueError, AgentError) as wrong:
        raise Broken(f"{path.name}: {wrong}") from None
    except Broken:
        raise
    except Exception as error:
        raise _thrown(path, error) from None
    return agent


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
    agent = Agent(agent_id, one_line(said), marks=marks, source=source, remembers=wants_run)
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
