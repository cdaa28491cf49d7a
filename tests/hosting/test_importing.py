"""What agent files import: the modules beside them and of the folder where the hub is started."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs
from support.hub import Client, Hub
from support.process import HubProcess
from support.sse import post

WORD = """
from {module} import WORD

async def {name}(message: str):
    yield WORD
"""


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    running = HubProcess(tmp_path)
    yield running
    await running.kill()


async def answer(url: str, agent: str, message: str = "go") -> str:
    """Return what an agent says, or the error of its answer."""
    async with aiohttp.ClientSession(f"{url}/api/v1/") as http:
        _, said = await post(http, "sessions/s1/chat?wait=true", {"agentId": agent, "message": message})
    return str(said.get("error") or said["content"])


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- what can be imported ---------------------------------------------------------------------------------------------


async def test_an_agent_imports_what_lies_beside_it_and_where_the_hub_was_started(process: HubProcess) -> None:
    """Modules and packages, by their names or relative to the agent; never in the place of the standard library's."""
    write(process.folder, "agents/_beside.py", "WORD = 'beside'")
    write(process.folder, "project/inner/words.py", "WORD = 'inner'")
    write(process.folder, "project/__init__.py", "from .inner.words import WORD")
    write(process.folder, "random.py", "raise RuntimeError('this hides the standard library')")
    write(process.folder, "agents/secrets.py", "raise RuntimeError('this hides the standard library')")
    process.agent("beside.py", WORD.format(module="_beside", name="beside"))
    process.agent("relative.py", WORD.format(module="._beside", name="relative"))
    process.agent("project_.py", WORD.format(module="project", name="project_"))
    process.agent("nested.py", WORD.format(module="project.inner.words", name="nested"))
    process.agent("standard.py", "import random, secrets\n\ndef standard():\n    return str(random.randrange(1))")
    await process.start()
    said = [await answer(process.url, name) for name in ("beside", "relative", "project_", "nested", "standard")]
    assert said == ["beside", "beside", "inner", "inner", "0"], process.log


async def test_both_folders_stand_at_the_end_of_the_path(hub: Hub) -> None:
    """As long as the hub goes on."""
    before = list(sys.path)
    await hub.start()
    mine = [str(hub.folder / "agents"), os.getcwd()]
    assert sys.path == [*before, *(folder for folder in mine if folder not in before)]
    await hub.stop()
    assert sys.path == before


async def test_the_end_of_a_hub_removes_no_variable(hub: Hub) -> None:
    """The thread that sends traces reads os.environ.items(): a KeyError if another thread removes a variable."""
    await hub.start()
    names = set(os.environ)
    assert os.environ["_HUBBUB_AGENTS"] == str(hub.folder / "agents")
    await hub.stop()
    assert set(os.environ) == names and os.environ["_HUBBUB_AGENTS"] == ""


POOL = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import _numbers

def double(number):
    return f"{__name__} {_numbers.twice(number)}"

def my_pool(message: str):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(message)) as pool:
        yield pool.submit(double, 21).result()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("folder", ["agents", "my-agents"])
async def test_a_function_of_an_agent_runs_in_a_process_pool(process: HubProcess, method: str, folder: str) -> None:
    """A child imports the agent's module by its name, whatever its folder and its file are called."""
    process.agents = folder
    process.agent("my-pool.py", POOL)
    process.agent("_numbers.py", "def twice(number):\n    return 2 * number")
    await process.start()
    assert await answer(process.url, "my-pool", method) == "hubbub_agents.my-pool 42", process.log


# --- what has changed -------------------------------------------------------------------------------------------------


async def loaded(hub: Hub) -> tuple[list[str], dict[str, str]]:
    """Look for changes; return the ids of what was loaded, and what all agents say now."""
    ids = await hub.node.agents.reload_changed_agents()
    client = await hub.connect("?sessionId=s1")
    return ids, {one.id: await said(client, one.id) for one in hub.node.agents.all() if one.id not in ("gated", "echo")}


async def said(client: Client, agent: str) -> str:
    before = len(client.frames)
    await client.send(type="chat", agentId=agent, message="go")
    end = await client.until(lambda frame: frame.get("done") or frame["type"] in ("run_finished", "error"))
    return str(end.get("code") or "".join(frame.get("content", "") for frame in client.frames[before:]))


HELPERS = ["_words.py", "words/__init__.py", "words/inner/deep.py"]


@pytest.mark.parametrize("helper", HELPERS)
async def test_a_changed_helper_reloads_each_agent_that_imports_it(hub: Hub, helper: str) -> None:
    """Also through another helper, and inside of a function; the others stay the very agents they were."""
    module = helper.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    path = write(hub.folder / "agents", helper, "WORD = 'old'")
    os.utime(path, ns=(10**18, 10**18))
    hub.agent("_between.py", f"import {module}\nWORD = {module}.WORD")
    hub.agent("direct.py", WORD.format(module=module, name="direct"))
    hub.agent("through.py", WORD.format(module="_between", name="through"))
    hub.agent("inside.py", f"def inside():\n    from {module} import WORD\n    return WORD")
    hub.agent("other.py", "def other():\n    return 'other'")
    await hub.start()
    other = hub.node.agents.get_working("other")
    names = ["direct", "inside", "through"]
    assert await loaded(hub) == ([], {name: "old" for name in names} | {"other": "other"})
    path.write_text("WORD = 'new'")
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))  # in the same second, and of the same length
    assert await loaded(hub) == (names, {name: "new" for name in names} | {"other": "other"})
    assert hub.node.agents.get_working("other") is other
    assert await hub.node.agents.reload_changed_agents() == []


async def test_a_helper_that_breaks_is_named_and_when_mended_its_agents_work_again(hub: Hub) -> None:
    """So it is with one that was missing. Clients hear the line, and no text of the exception."""
    hub.agent("a.py", "from _late import WORD\ndef a():\n    return WORD")
    await hub.start()
    assert hub.node.agents.find("a").error == "a.py line 1: ModuleNotFoundError: No module named '_late'"
    hub.agent("_late.py", "WORD = 'come'")
    assert await loaded(hub) == (["a"], {"a": "come"})
    hub.agent("_late.py", "WORD = 'come'\n\nraise RuntimeError('hunter2')")
    assert await loaded(hub) == (["a"], {"a": "agent_broken"})
    assert hub.node.agents.find("a").error == "a.py line 1, in _late.py line 3: RuntimeError: hunter2"
    assert "hunter2" not in str(hub.node.agents.describe())
    hub.agent("_late.py", "WORD = 'mended'")
    assert await loaded(hub) == (["a"], {"a": "mended"})
    assert await hub.node.agents.reload_changed_agents() == []


async def test_a_reload_over_http_takes_up_changed_helpers_for_all_who_import_them(hub: Hub) -> None:
    """The log names each agent. A helper that is as it was stays the very module, with what it holds."""
    hub.agent("_shared.py", "WORD = 'old'")
    hub.agent("_state.py", "OPENED = []")
    for name in ("a", "b"):
        hub.agent(f"{name}.py", "import _state\n" + WORD.format(module="_shared", name=name))
    hub.agent("c.py", "def c():\n    return 'c'")
    await hub.start()
    state, other = sys.modules["_state"], hub.node.agents.get_working("c")
    async with aiohttp.ClientSession(f"{hub.url}/api/v1/") as http:
        for text, names in (("WORD = 'old'", ["a"]), ("WORD = 'newer'", ["a", "b"])):
            hub.agent("_shared.py", text) if "newer" in text else None
            with capture_logs() as logs:
                assert (await post(http, "agents/a/reload"))[0] == 200
            assert [(line["event"], line["agent"]) for line in logs] == [("agent loaded", name) for name in names]
    assert await loaded(hub) == ([], {"a": "newer", "b": "newer", "c": "c"})
    assert sys.modules["_state"] is state and hub.node.agents.get_working("c") is other


async def test_an_agent_that_imports_another_is_reloaded_with_it(hub: Hub) -> None:
    """By the name of the package, or as a module of the folder."""
    hub.agent("words.py", "WORD = 'old'\ndef words():\n    return WORD")
    hub.agent("a.py", WORD.format(module="hubbub_agents.words", name="a"))
    hub.agent("z.py", WORD.format(module="words", name="z"))
    await hub.start()
    hub.agent("words.py", "WORD = 'newer'\ndef words():\n    return WORD")
    assert await loaded(hub) == (["a", "words", "z"], {"a": "newer", "words": "newer", "z": "newer"})


async def test_what_is_installed_is_not_watched(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the hub itself: no reload takes its modules away."""
    monkeypatch.chdir(Path(__file__).parents[2])
    installed = tmp_path / "project" / ".venv" / "lib"
    path = write(installed, "acme_words.py", "WORD = 'installed'")
    monkeypatch.syspath_prepend(str(installed))
    hub.agent("a.py", "import hub.ids, asyncio\n" + WORD.format(module="acme_words", name="a"))
    await hub.start()
    ids = sys.modules["hub.ids"]
    path.write_text("WORD = 'changed'")
    assert await loaded(hub) == ([], {"a": "installed"})
    await hub.node.agents.reload("a")
    assert sys.modules["hub.ids"] is ids
    sys.modules.pop("acme_words")
