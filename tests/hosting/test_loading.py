"""Loading and reloading the files of the agents folder."""

import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.packages import add_package
from support.waiting import PATIENCE, eventually

from hub.errors import AgentBroken, UnknownAgent
from hub.hosting.calls import open_answer
from hub.hosting.contract import Call, Marks, Message, Run
from hub.hosting.folder import Agents
from hub.hosting.functions import ReturnedNone
from hub.hosting.hosted import Agent
from hub.hosting.loader import ADAPTER_MODULES
from hub.hosting.output import call_agent
from hub.hosting.slots import Slots
from hub.limits import Limits
from hub.messages import Author

NUL_ERROR = (
    "SyntaxError" if sys.version_info >= (3, 11, 4) else "ValueError"
)  # the error of Python for a NUL in source code

# An adapter that writes a line when it is opened and closed.
NOTED = """
from contextlib import asynccontextmanager
import attrs
from hub.errors import AgentError

@attrs.frozen
class Options:
    notes: str
    times: int = 1
    fails: str = ""

@asynccontextmanager
async def open(options, paths):
    if options.fails == "AgentError":
        raise AgentError("no key is set")
    if options.fails:
        raise {"ValueError": ValueError, "RuntimeError": RuntimeError}[options.fails]("bad mood")

    def note(line):
        with (paths.data / options.notes).open("a") as file:
            file.write(line + "\\n")

    async def answer(run):
        for _ in range(options.times):
            yield f"{paths.agent} heard {run.message}"

    note("entered")
    yield answer
    note("left")
"""


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[Agents]:
    folder, data = tmp_path / "agents", tmp_path / "data"
    folder.mkdir()
    data.mkdir()
    agents = Agents(folder=folder, data=data, cache=tmp_path)
    yield agents
    await agents.close()


@pytest.fixture
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_plugins: None) -> Path:
    """A folder on sys.path with a package whose adapter is the module `noted`; each test writes that module."""
    folder = tmp_path / "adapters"
    add_package(folder, "acme-noted", "[hubbub.adapters]\nnoted = noted")
    monkeypatch.delitem(sys.modules, "noted", raising=False)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def write(agents: Agents, name: str, text: str) -> Path:
    path = agents.folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def a_run(message: str = "hi") -> Run:
    def call(run: Run, agent: str, message: str) -> Call:
        raise AssertionError("nobody is called here")

    return Run(
        id="r-1", agent="a", session="s-1", message=message, principal=Author("p-1", "Ann"), history=(), call=call
    )


async def given(agent: Agent, message: str = "hi") -> list[Any]:
    """Return the output of the agent, as a run gets it."""
    async with aclosing(call_agent(agent, a_run(message))) as heard:  # type: ignore[type-var]
        return [piece async for piece in heard]


async def only(agents: Agents, text: str, name: str = "a.py") -> Agent:
    write(agents, name, text)
    await agents.open()
    (agent,) = agents.all()
    return agent


async def error(agents: Agents, text: str, name: str = "a.py") -> str:
    agent = await only(agents, text, name)
    assert agent.error and "\n" not in agent.error and "Traceback" not in agent.error
    assert agent.async_function is None and agent.plain_function is None
    return agent.error


# --- what a function may be -------------------------------------------------------------------------------------------

KINDS = {
    "async generator": ("async def a(message):\n yield message\n yield '!'", ["hi", "!"]),
    "coroutine, text": ("async def a(message): return message", [Message("hi")]),
    "coroutine, None": ("async def a(message): pass", [ReturnedNone]),
    "coroutine, async iterator": ("async def g(m):\n yield m\nasync def a(message): return g(message)", ["hi"]),
    "coroutine, iterator": ("async def a(message): return iter(message)", ["h", "i"]),
    "plain generator": ("def a(message):\n yield message\n yield '!'", ["hi", "!"]),
    "plain, text": ("def a(message): return message", [Message("hi")]),
    "plain, None": ("def a(message): pass", [ReturnedNone]),
    "plain, iterator": ("def a(message): return iter(message)", ["h", "i"]),
    "plain, async iterator": ("async def g(m):\n yield m\n yield '!'\ndef a(message): return g(message)", ["hi", "!"]),
    "plain, awaitable": ("async def g(m): return m\ndef a(message): return g(message)", [Message("hi")]),
    "plain, no text": ("def a(message): return {'not': 'text'}", [{"not": "text"}]),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_function_of_any_kind_answers(agents: Agents, kind: str) -> None:
    """Generators stream, a returned text is a complete message; the run checks and refuses other values."""
    text, expected = KINDS[kind]
    agent = await only(agents, text)
    assert agent.error is None
    assert (agent.plain_function is not None) == kind.startswith("plain")
    assert [type(piece) if isinstance(piece, ReturnedNone) else piece for piece in await given(agent)] == expected


async def test_an_async_generator_is_not_wrapped(agents: Agents) -> None:
    """No code of the hub runs between two outputs of the agent."""
    agent = await only(agents, "async def a(run):\n yield run.message")
    assert agent.async_function is not None
    assert agent.async_function(a_run()).ag_code.co_name == "a"  # type: ignore[attr-defined]


async def test_a_decorated_async_function_runs_in_the_loop_of_the_hub(agents: Agents) -> None:
    """A plain function that wraps an async one counts as async."""
    agent = await only(
        agents,
        """
        import functools
        def twice(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)
            return wrapper
        @twice
        async def a(message):
            yield message
        """,
    )
    assert agent.plain_function is None
    assert await given(agent) == ["hi"]


async def test_a_decorator_may_wrap_an_object_that_is_no_function(agents: Agents) -> None:
    """The wrapper answers."""
    agent = await only(
        agents,
        """
        import functools
        class Callable:
            def __call__(self, message):
                return message
        @functools.wraps(Callable(), assigned=())
        def a(message):
            return message
        """,
    )
    assert agent.source == "a.py:6"
    assert await given(agent) == [Message("hi")]


@pytest.mark.parametrize(
    "how",
    ["async def a(message): return g()", "def a(message): return g()", "async def a(message): return p()"],
)
async def test_closing_an_answer_closes_what_the_function_returned(agents: Agents, how: str) -> None:
    """Closing the outer generator runs the `finally` of the inner one."""
    agent = await only(
        agents,
        f"""
        closed = []
        async def g():
            try:
                yield "one"
                yield "two"
            finally:
                closed.append(True)
        def p():
            try:
                yield "one"
                yield "two"
            finally:
                closed.append(True)
        {how}
        """,
    )
    if agent.async_function is not None:
        answer = agent.async_function(a_run())
        assert await anext(answer) == "one"
        await answer.aclose()  # type: ignore[attr-defined]
    else:
        async with aclosing(call_agent(agent, a_run())) as heard:  # type: ignore[type-var]
            assert await anext(heard) == "one"
    assert sys.modules["hubbub_agents.a"].closed == [True]


# --- which function ---------------------------------------------------------------------------------------------------

CHOICES = {
    "marked": ("from hub import agent\ndef a(message): return 'named'\n@agent\ndef b(message): return 'yes'", "a.py"),
    "named": ("def other(message): return 'no'\ndef my_agent(message): return 'yes'", "my-agent.py"),
    "only": ("from json import dumps\ndef _no(message): pass\ndef say(message): return 'yes'", "a.py"),
}


@pytest.mark.parametrize("choice", CHOICES)
async def test_the_decorated_function_answers_else_the_one_with_the_file_name_else_the_only_one(
    agents: Agents, choice: str
) -> None:
    """Imported and private functions do not count."""
    assert await given(await only(agents, *CHOICES[choice])) == [Message("yes")]


@pytest.mark.parametrize("text", ["def b(message): pass\ndef c(message): pass", "x = 1"])
async def test_a_file_without_a_clear_function_says_what_to_do(agents: Agents, text: str) -> None:
    """None, or several without a decorator."""
    said = await error(agents, text)
    assert "a.py" in said and "name one a" in said and "@agent" in said


async def test_two_marked_functions_are_refused(agents: Agents) -> None:
    """The file's name does not decide between them."""
    said = await error(agents, "from hub import agent\n@agent\ndef a(message): pass\n@agent\ndef b(message): pass")
    assert "several functions" in said


async def test_marks_are_kept(agents: Agents) -> None:
    """The arguments of @agent are in `marks`."""
    code = "from hub import agent\n@agent(restartable=True, max_runs=2, tools=True)\ndef a(message): pass"
    agent = await only(agents, code)
    assert agent.marks == Marks(restartable=True, max_runs=2, tools=True)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ('max_runs="x"', "max_runs must be a whole number, 1 or more, not 'x'"),
        ("max_runs=0", "max_runs must be a whole number, 1 or more, not 0"),
        ("max_runs=True", "max_runs must be a whole number, 1 or more, not True"),
        ('time_limit="a"', "time_limit must be a number of seconds above 0, not 'a'"),
        ("silence_limit=-1", "silence_limit must be a number of seconds above 0, not -1"),
        ('time_limit=float("nan")', "time_limit must be a number of seconds above 0, not nan"),
        ("max_run=3", "@agent has no argument max_run: use restartable, max_runs, time_limit, silence_limit, "),
        ("tools=1", "tools must be True or False, not 1"),
    ],
)
async def test_a_wrong_argument_of_the_decorator_breaks_the_agent(agents: Agents, argument: str, text: str) -> None:
    """The error names the argument and what it may be; otherwise the first answer would fail or never end."""
    assert text in await error(agents, f"from hub import agent\n@agent({argument})\ndef a(message): pass")


@pytest.mark.parametrize(("key", "value"), [("max_runs", "0"), ("time_limit", "-1.5"), ("silence_limit", "inf")])
async def test_a_wrong_limit_in_a_toml_file_breaks_the_agent(agents: Agents, key: str, value: str) -> None:
    """A TOML file has the same limits as the decorator."""
    write(agents, "a.toml", f'adapter = "openai_chat"\n{key} = {value}')
    await agents.open()
    (agent,) = agents.all()
    assert agent.error is not None and f"{key} must be a" in agent.error


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ('"""Of the module.\n\nMore."""\ndef a(message):\n "Of the function."', "Of the module."),
        ('def a(message):\n """\n Of the function.\n """', "Of the function."),
        ("def a(message): pass", ""),
        ('"half \\ud800"\ndef a(message): pass', "half ?"),
    ],
)
async def test_the_description_is_the_first_line_of_the_docstring(agents: Agents, text: str, description: str) -> None:
    """Of the module, else of the function; JSON can always hold it."""
    assert (await only(agents, text)).description == description


# --- its parameters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signature", "expression"),
    [
        ("run, message", "run.id + message"),
        ("message, run", "run.id + message"),
        ("text: str, this: Run", "this.id + text"),
        ("text: 'str', this: 'Run'", "this.id + text"),
        ("message, run, /", "run.id + message"),
        ("*, message, run", "run.id + message"),
        ("message, run, model: str = '', *args, **more", "run.id + message + model + ''.join(more)"),
        ("", "'r-1hi'"),
    ],
)
async def test_a_function_gets_the_run_and_the_message_by_its_parameters(
    agents: Agents, signature: str, expression: str
) -> None:
    """By name or by type, in any order; other parameters keep their defaults."""
    agent = await only(agents, f"from hub import Run\ndef a({signature}): return {expression}")
    assert await given(agent) == [Message("r-1hi")]


async def test_the_error_names_another_required_parameter(agents: Agents) -> None:
    """With the line of the function."""
    said = await error(agents, "\ndef a(message, session): pass")
    problem = "a.py line 2: a() has a parameter 'session'"
    assert said == f"{problem}; it may only have message: str and run: Run, or parameters with a default"


# --- broken files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\ndef a(:\n pass", "a.py line 2: invalid syntax"),
        ("\n\n1 / 0", "a.py line 3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)", "a.py line 2: SystemExit: 3"),
        ("import nothing_of_that_name", "a.py line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("raise ValueError('two\\nlines \\ud800')", "a.py line 1: ValueError: two lines ?"),
        ("\0", f"a.py: {NUL_ERROR}: source code string cannot contain null bytes"),
        ("import asyncio\nraise asyncio.CancelledError", "a.py line 2: CancelledError:"),
        ("x = 1\nexec('(')", "a.py line 2: SyntaxError: '(' was never closed (<string>, line 1)"),
    ],
)
async def test_a_broken_file_is_listed_with_its_line(agents: Agents, text: str, expected: str) -> None:
    """No exception is raised, and the other agents work."""
    write(agents, "good.py", "def good(message): return message")
    write(agents, "a.py", text)
    await agents.open()
    assert [(one.id, one.error) for one in agents.all()] == [("a", expected), ("good", None)]
    told, good = agents.describe()
    assert told["status"] == "broken" and expected.startswith(told["error"].partition(";")[0])
    assert good == {"agentId": "good", "description": "", "status": "ok"}
    assert await given(agents.get_working("good")) == [Message("hi")]


async def test_an_agent_whose_file_name_is_no_id_is_broken(agents: Agents) -> None:
    """Clients still get the list of agents, for any bytes in the name."""
    (agents.folder / os.fsdecode(b"caf\xe9.py")).write_text("def a(message): pass")
    write(agents, "b c.py", "def a(message): pass")
    await agents.open()
    assert [one["agentId"] for one in agents.describe()] == ["b c", "caf?"]
    assert all(
        "the name is not a valid id: use 1 to 128" in one["error"].encode().decode() for one in agents.describe()
    )


async def test_other_files_are_ignored(agents: Agents) -> None:
    """Private and hidden files, other kinds of files, folders."""
    for name in ("_helper.py", ".hidden.py", "notes.md"):
        write(agents, name, "1 / 0")
    (agents.folder / "__pycache__").mkdir()
    (agents.folder / "folder.py").mkdir()
    await agents.open()
    assert agents.all() == []


async def test_a_name_with_two_files_is_broken(agents: Agents) -> None:
    """The hub does not choose between them."""
    write(agents, "a.toml", 'adapter = "openai_chat"')
    assert await error(agents, "def a(message): pass") == "a.py and a.toml define the same agent: keep one"


async def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    """The error is one line with the folder."""
    with pytest.raises(FileNotFoundError, match=f"^there is no agents folder {tmp_path}/none: .*$"):
        await Agents(folder=tmp_path / "none", data=tmp_path, cache=tmp_path).open()


# --- adapters ---------------------------------------------------------------------------------------------------------


async def test_an_adapter_answers_with_its_options(agents: Agents, adapters: Path) -> None:
    """Its options are the TOML keys without the description and the marks; it is closed with the agents."""
    (adapters / "noted.py").write_text(NOTED)
    agent = await only(
        agents,
        """
        adapter = "noted"
        description = "Notes it."
        restartable = true
        time_limit = 5
        notes = "notes.txt"
        times = 2
        """,
        "a.toml",
    )
    assert agent.error is None
    assert (agent.description, agent.marks) == ("Notes it.", Marks(restartable=True, time_limit=5.0))
    assert await given(agent) == ["a heard hi"] * 2
    assert (agents.data / "notes.txt").read_text() == "entered\n"
    await agents.close()
    assert (agents.data / "notes.txt").read_text() == "entered\nleft\n"


@pytest.mark.parametrize(
    ("function", "line", "takes_tools"),
    [
        ("", "", False),
        ("", "tools = true", True),
        ("def takes_tools(options):\n    return options.times > 1\n", "", False),
        ("def takes_tools(options):\n    return options.times > 1\n", "times = 2", True),
        ("def takes_tools(options):\n    return options.times > 1\n", "times = 2\ntools = false", False),
    ],
)
async def test_an_adapter_says_whether_its_agents_take_tools(
    agents: Agents, adapters: Path, function: str, line: str, takes_tools: bool
) -> None:
    """It depends on the options; the key `tools` of the file counts before the adapter."""
    (adapters / "noted.py").write_text(NOTED + "\n\n" + function)
    agent = await only(agents, f'adapter = "noted"\nnotes = "n"\n{line}', "a.toml")
    assert agent.error is None and agent.marks.tools is takes_tools


async def test_listing_the_agents_opens_no_adapter(agents: Agents, adapters: Path) -> None:
    """Nothing is started; the `check` of the adapter still finds bad options."""
    check = "\n\ndef check(options):\n    if options.times > 9:\n        raise ValueError('too many times')\n"
    (adapters / "noted.py").write_text(NOTED + check)
    write(agents, "a.toml", 'adapter = "noted"\nnotes = "notes.txt"\ndescription = "Notes."')
    write(agents, "b.toml", 'adapter = "noted"\nnotes = "notes.txt"\ntimes = 10')
    agents.opens_adapters = False
    await agents.open()
    assert [(one.describe()["status"], one.description or one.error) for one in agents.all()] == [
        ("ok", "Notes."),
        ("broken", "b.toml: too many times"),
    ]
    await agents.close()
    assert not (agents.data / "notes.txt").exists()


async def test_the_adapter_for_language_models_is_there(agents: Agents) -> None:
    """A TOML file alone defines such an agent."""
    agent = await only(agents, 'adapter = "openai_chat"', "a.toml")
    assert agent.error is None and agent.async_function is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('adapter = "nope"', "a.toml: there is no adapter 'nope'; the adapters are: noted, openai_chat"),
        ('adapter = "sse"', "a.toml: there is no adapter 'sse'; the adapters are: noted, openai_chat"),
        ("notes = ''", "a.toml: the key `adapter` is missing; the adapters are: noted, openai_chat"),
        ("adapter = []", "a.toml: there is no adapter []; the adapters are: noted, openai_chat"),
        ("adapter = ", "a.toml: Invalid value (at end of document)"),
        (
            'adapter = "noted"\nnotes = "n"\ncolour = 1',
            "a.toml: unknown key 'colour': use one of adapter, restartable, max_runs, time_limit, "
            "silence_limit, unheard_seconds, tools, description, notes, times, fails",
        ),
        ('adapter = "noted"\nnots = "n"', "a.toml: unknown key 'nots': did you mean notes?"),
        ('adapter = "noted"\ndescripton = "n"', "a.toml: unknown key 'descripton': did you mean description?"),
        ('adapter = "noted"', "a.toml: Object missing required field `notes`"),
        ('adapter = "noted"\nnotes = "n"\ntimes = "x"', "a.toml: Expected `int`, got `str` - at `$.times`"),
        ('adapter = "noted"\ndescription = 1', "a.toml: Expected `str`, got `int` - at `$.description`"),
        ('adapter = "noted"\nmax_runs = "x"', "a.toml: Expected `int | null`, got `str` - at `$.max_runs`"),
        ('adapter = "noted"\nnotes = "n"\nfails = "AgentError"', "a.toml: no key is set"),
        ('adapter = "noted"\nnotes = "n"\nfails = "ValueError"', "a.toml: bad mood"),
        ('adapter = "noted"\nnotes = "n"\nfails = "RuntimeError"', "a.toml: RuntimeError: bad mood"),
    ],
)
async def test_an_error_in_a_toml_file_is_named(agents: Agents, adapters: Path, text: str, expected: str) -> None:
    """The error is one line, with the valid names."""
    (adapters / "noted.py").write_text(NOTED)
    assert await error(agents, text, "a.toml") == expected


async def test_a_table_may_begin_with_a_byte_order_mark(agents: Agents, adapters: Path) -> None:
    """Editors on Windows write one; a .py file may begin with one too."""
    (adapters / "noted.py").write_text(NOTED)
    write(agents, "b.py", "\ufeffdef b(message): return message")
    write(agents, "a.toml", '\ufeffadapter = "noted"\nnotes = "n"')
    await agents.open()
    assert [agent.error for agent in agents.all()] == [None, None]


async def test_an_adapter_that_lacks_a_library_names_the_extra(
    agents: Agents, adapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter is listed: only an install command is missing."""
    (adapters / "lacking.py").write_text("import nothing_of_that_name\n\nclass Options: ...\n")
    monkeypatch.setitem(ADAPTER_MODULES, "lacking", "lacking")
    said = await error(agents, 'adapter = "lacking"', "a.toml")
    assert "nothing_of_that_name" in said and said.endswith("-m pip install '.[lacking]' (in a clone of Hubbub)")


NOTED_ENTRY = "entry point 'noted' of package acme-noted 1.0 (hubbub.adapters)"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
async def test_a_package_whose_adapter_cannot_be_imported_is_named(
    agents: Agents, adapters: Path, code: str, problem: str
) -> None:
    """Only its agents are broken. Clients do not see the text of the exception."""
    (adapters / "noted.py").write_text(code)
    write(agents, "good.toml", 'adapter = "openai_chat"')
    write(agents, "a.toml", 'adapter = "noted"\nnotes = "n"')
    await agents.open()
    broken, good = agents.all()
    assert broken.error == f"a.toml: {NOTED_ENTRY} cannot be imported: {problem}; upgrade or remove the package"
    assert broken.public_error == "a.toml: the adapter 'noted' cannot be used; `hubbub agents` shows the reason"
    assert good.error is None and good.async_function is not None


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("def open(options, place): ...", "it lacks an attrs class `Options`"),
        ("class Options: ...\ndef open(options, place): ...", "it lacks an attrs class `Options`"),
        ("import attrs\n@attrs.frozen\nclass Options: ...", "it lacks a function `open`"),
    ],
)
async def test_an_adapter_without_the_names_of_the_contract_is_refused(
    agents: Agents, adapters: Path, code: str, problem: str
) -> None:
    """The error is one line with the missing name."""
    (adapters / "noted.py").write_text(code)
    assert await error(agents, 'adapter = "noted"', "a.toml") == f"a.toml: {NOTED_ENTRY} is no adapter: {problem}"


async def test_an_adapter_may_be_an_object(agents: Agents, adapters: Path) -> None:
    """An entry point may name an attribute of a module."""
    add_package(adapters, "acme-object", "[hubbub.adapters]\nobject = noted:adapter")
    (adapters / "noted.py").write_text(NOTED + "\nimport types\nadapter = types.SimpleNamespace(**globals())\n")
    agent = await only(agents, 'adapter = "object"\nnotes = "n"', "a.toml")
    assert await given(agent) == ["a heard hi"]


async def test_an_adapter_of_the_hub_wins_over_a_package(agents: Agents, adapters: Path) -> None:
    """The package is named in one warning line, however often agents are loaded."""
    add_package(adapters, "acme-chat", "[hubbub.adapters]\nopenai_chat = noted")
    (adapters / "noted.py").write_text("raise AssertionError('not to be imported')")
    with capture_logs() as logs:
        agent = await only(agents, 'adapter = "openai_chat"', "a.toml")
        await agents.reload("a")
    assert agent.error is None
    (plugin,) = [line["plugin"] for line in logs if "plugin" in line]
    assert plugin == "entry point 'openai_chat' of package acme-chat 1.0 (hubbub.adapters)"


async def test_of_two_packages_with_one_adapter_the_first_on_the_path_wins(
    agents: Agents, adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning line names both."""
    first = tmp_path / "first"
    add_package(first, "acme-first", "[hubbub.adapters]\nnoted = first_noted", {"first_noted": NOTED})
    monkeypatch.delitem(sys.modules, "first_noted", raising=False)
    monkeypatch.syspath_prepend(str(first))
    with capture_logs() as logs:
        agent = await only(agents, 'adapter = "noted"\nnotes = "n"', "a.toml")
    assert await given(agent) == ["a heard hi"]
    (line,) = [line for line in logs if "plugin" in line]
    assert line["plugin"] == NOTED_ENTRY and "acme-first 1.0" in line["used"]


# --- changes ----------------------------------------------------------------------------------------------------------


async def test_only_what_changed_is_loaded_again(agents: Agents) -> None:
    """Changed, new and removed agents are returned; the other agents stay the same objects."""
    for name in ("same", "changed", "gone"):
        write(agents, f"{name}.py", f"def {name}(message): return 'old'")
    await agents.open()
    same = agents.get_working("same")
    assert await agents.reload_changed_agents() == []
    write(agents, "changed.py", "def changed(message): return 'newer'")
    write(agents, "new.py", "def new(message): return 'new'")
    (agents.folder / "gone.py").unlink()
    assert await agents.reload_changed_agents() == ["changed", "gone", "new"]
    assert [agent.id for agent in agents.all()] == ["changed", "new", "same"]
    assert agents.get_working("same") is same
    assert await given(agents.get_working("changed")) == [Message("newer")]


async def test_an_edit_of_the_same_length_is_detected(agents: Agents) -> None:
    """No stale bytecode is used: times of changes are compared in nanoseconds."""
    path = write(agents, "a.py", "def a(message): return 'old'")
    os.utime(path, ns=(10**18, 10**18))
    await agents.open()
    write(agents, "a.py", "def a(message): return 'new'")
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    assert await agents.reload_changed_agents() == ["a"]
    assert await given(agents.get_working("a")) == [Message("new")]


async def test_a_file_is_broken_and_corrected(agents: Agents) -> None:
    """The status follows the file."""
    await only(agents, "def a(message): return 'one'")
    write(agents, "a.py", "def a(message) return 'two'")
    await agents.reload_changed_agents()
    with pytest.raises(AgentBroken, match="a.py line 1"):
        agents.get_working("a")
    write(agents, "a.py", "def a(message): return 'three'")
    await agents.reload_changed_agents()
    assert await given(agents.get_working("a")) == [Message("three")]


async def test_a_running_answer_keeps_its_code(agents: Agents) -> None:
    """Also for names that it looks up in its module after the change."""
    text = "WORD = 'old'\nasync def a(message):\n yield WORD\n yield WORD"
    agent = await only(agents, text)
    async with aclosing(call_agent(agent, a_run())) as heard:  # type: ignore[type-var]
        assert await anext(heard) == "old"
        write(agents, "a.py", text.replace("old", "newer"))
        assert await agents.reload_changed_agents() == ["a"]
        assert await anext(heard) == "old"
    assert await given(agents.get_working("a")) == ["newer", "newer"]


async def test_a_reloaded_adapter_is_closed_after_its_last_answer(agents: Agents, adapters: Path) -> None:
    """Its resources stay open until then."""
    (adapters / "noted.py").write_text(NOTED)
    agent = await only(agents, 'adapter = "noted"\nnotes = "old"', "a.toml")
    agent.running_answers = 2
    write(agents, "a.toml", 'adapter = "noted"\nnotes = "newer"')
    assert await agents.reload_changed_agents() == ["a"]
    assert (agents.data / "old").read_text() == "entered\n"
    assert (agents.data / "newer").read_text() == "entered\n"
    agents.close_if_idle(agent)  # one of two answers has ended
    agent.running_answers = 0
    agents.close_if_idle(agent)
    await eventually(lambda: (agents.data / "old").read_text() == "entered\nleft\n")
    assert (agents.data / "newer").read_text() == "entered\n"


async def test_close_waits_for_adapters_that_are_closing(agents: Agents, adapters: Path) -> None:
    """A reload does not wait for a slow adapter, but close() does; an adapter that fails to close harms nothing."""
    slow = "    import asyncio\n    while not (paths.data / 'gate').exists():\n        await asyncio.sleep(0.01)\n"
    slow += "    note('left')\n    raise RuntimeError('bad mood')\n"
    (adapters / "noted.py").write_text(NOTED.replace('    note("left")\n', slow))
    await only(agents, 'adapter = "noted"\nnotes = "n"', "a.toml")
    (agents.folder / "a.toml").unlink()
    assert await agents.reload_changed_agents() == ["a"]
    closing = asyncio.create_task(agents.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert (agents.data / "n").read_text() == "entered\n" and not closing.done()
    (agents.data / "gate").touch()
    await asyncio.wait_for(closing, PATIENCE)
    assert (agents.data / "n").read_text() == "entered\nleft\n"


async def test_a_call_of_another_agent_keeps_its_adapter_open(agents: Agents, adapters: Path) -> None:
    """The call counts as an answer: the adapter is closed when the call has ended."""
    (adapters / "noted.py").write_text(NOTED)
    await only(agents, 'adapter = "noted"\nnotes = "n"\ntimes = 99', "a.toml")
    async with open_answer(Slots(agents).take(agents.get_working("a")), Limits(), a_run()) as heard:
        assert await anext(heard) == "a heard hi"
        (agents.folder / "a.toml").unlink()
        assert await agents.reload_changed_agents() == ["a"]
        for _ in range(5):  # a task that leaves it would have its turn
            await asyncio.sleep(0)
        assert await anext(heard) == "a heard hi"
        assert (agents.data / "n").read_text() == "entered\n"
    await eventually(lambda: (agents.data / "n").read_text() == "entered\nleft\n")


async def test_loads_of_one_file_at_once_lose_no_adapter(agents: Agents, adapters: Path) -> None:
    """Each adapter that was opened is closed, except the current one."""
    slow = "async def open(options, paths):\n    import asyncio\n    await asyncio.sleep(0.01)\n"
    (adapters / "noted.py").write_text(NOTED.replace("async def open(options, paths):\n", slow))
    await only(agents, 'adapter = "noted"\nnotes = "n"', "a.toml")
    write(agents, "a.toml", 'adapter = "noted"\nnotes = "n" ')
    await asyncio.gather(
        agents.reload("a"), agents.reload_changed_agents(), agents.reload("a"), agents.reload_changed_agents()
    )
    await agents.close()
    lines = (agents.data / "n").read_text().split()
    assert lines.count("entered") == lines.count("left") >= 3


BUSY = """
import pathlib, threading, time
here = pathlib.Path(__file__).parent.parent
(here / "begun").write_text(threading.current_thread().name)
for _ in range(2000):
    if (here / "gate").exists():
        break
    time.sleep(0.01)
else:
    raise TimeoutError("nobody opened the gate")
"""


@pytest.mark.parametrize("kind", ["file", "adapter"])
async def test_a_slow_import_does_not_block_the_event_loop(agents: Agents, adapters: Path, kind: str) -> None:
    """The event loop opens the gate that the import waits for."""
    (adapters / "noted.py").write_text(BUSY + NOTED)
    if kind == "file":
        write(agents, "a.py", BUSY + "def a(message): return 'yes'")
    else:
        write(agents, "a.toml", 'adapter = "noted"\nnotes = "n"')
    here = agents.folder.parent
    loading = asyncio.create_task(agents.open())
    await eventually((here / "begun").exists)
    (here / "gate").touch()
    await loading
    assert agents.all()[0].error is None
    assert (here / "begun").read_text() == "hub-agents"


async def test_a_load_that_is_cancelled_changes_nothing(agents: Agents, adapters: Path) -> None:
    """The old adapter stays until close(); an exception in the import, which goes on, harms nothing."""
    (adapters / "noted.py").write_text(NOTED)
    old = await only(agents, 'adapter = "noted"\nnotes = "n"', "a.toml")
    (agents.folder / "a.toml").unlink()
    write(agents, "a.py", BUSY + "def a(message): return 'never'")
    loading = asyncio.create_task(agents.reload_changed_agents())
    await eventually((agents.folder.parent / "begun").exists)
    loading.cancel()
    await asyncio.wait([loading])
    assert loading.cancelled()
    assert agents.get_working("a") is old and await given(old) == ["a heard hi"]
    (agents.folder.parent / "gate").touch()
    await agents.close()
    assert (agents.data / "n").read_text().split() == ["entered", "left"]


async def test_a_file_that_raises_keyboard_interrupt_still_raises_it(agents: Agents) -> None:
    """The agent is not marked as broken: Ctrl-C is meant for the hub."""
    write(agents, "a.py", "raise KeyboardInterrupt")
    opening = agents.open()
    with pytest.raises(KeyboardInterrupt):
        while True:
            waited = opening.send(None)
            while waited is not None and not waited.done():
                await asyncio.sleep(0)


async def test_agents_are_dropped_with_their_folder(agents: Agents) -> None:
    """The check for changes raises no exception."""
    await only(agents, "def a(message): pass")
    (agents.folder / "a.py").unlink()
    agents.folder.rmdir()
    assert await agents.reload_changed_agents() == ["a"]
    assert agents.all() == []


# --- asking for one ---------------------------------------------------------------------------------------------------


async def test_the_error_for_an_unknown_agent_lists_the_working_agents(agents: Agents) -> None:
    """Without the broken ones."""
    write(agents, "b.py", "def b(message): pass")
    write(agents, "broken.py", "1 / 0")
    write(agents, "a.py", "def a(message): pass")
    await agents.open()
    with pytest.raises(UnknownAgent) as raised:
        agents.get_working("c")
    assert raised.value.message == "there is no agent c; there are: a, b"
    assert raised.value.fields == {"agentId": "c"}


async def test_the_error_for_a_broken_agent_has_the_reason(agents: Agents) -> None:
    """With the line of the listing."""
    await error(agents, "1 / 0")
    with pytest.raises(AgentBroken) as raised:
        agents.get_working("a")
    assert raised.value.message == (
        "agent a is broken: a.py line 1: ZeroDivisionError; `hubbub agents` shows the reason; "
        "correct its file, then reload the agent or restart the hub"
    )
    assert raised.value.fields == {"agentId": "a"}


async def test_clients_do_not_get_the_text_of_an_exception(tmp_path: Path) -> None:
    """It may hold a secret: clients get the line and the type."""
    (tmp_path / "leaks.py").write_text("x = 1\nraise RuntimeError('password=hunter2')")
    agents = Agents(folder=tmp_path, data=tmp_path, cache=tmp_path)
    await agents.open()
    assert "hunter2" in (agents.all()[0].error or "")
    with pytest.raises(AgentBroken) as refused:
        agents.get_working("leaks")
    for told in (refused.value.message, str(agents.describe())):
        assert "hunter2" not in told and "leaks.py line 2: RuntimeError" in told
    await agents.close()
