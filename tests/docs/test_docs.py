"""Every example in README and docs/ is run: what stands there is true of this hub."""

import ast
import asyncio
import configparser
import json
import os
import re
import shlex
import sqlite3
import sys
import textwrap
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import msgspec
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs
from support.documents import DOCS, PAGES, README, ROOT, Block, blocks, of_kind, pairs, rows
from support.hub import Client, Hub
from support.packages import add_package
from support.process import needs_curl
from support.waiting import PATIENCE

from hub.cli.main import cli
from hub.hosting.folder import Agents
from hub.messages import BODIES, NOTICES, Event
from hub.protocols import open_protocol
from hub.settings import load
from hub.storage.sqlite.event_rows import event_to_commit
from hub.storage.sqlite.migrations import MIGRATIONS
from hub.web.app import make_app

# What differs each time, or is the test's own: only its kind is compared.
VOLATILE = {"runId", "messageId", "epoch", "connectionId", "ts", "runIds", "messageIds", "agents", "version"}
VOLATILE_THERE = VOLATILE | {"id", "created", "data", "size", "fileId"}  # in answers over HTTP
KNOWN = {
    ("json", "command"),
    ("json", "answer"),
    ("json", "event"),
    ("json", "notice"),
    ("json", "plain"),
    ("json", "envelope"),
    ("python", "protocol"),
    ("ini", "protocol"),
    ("python", "client"),
    ("python", "adapter"),
    ("ini", "adapter"),
    ("toml", "adapter="),
    ("toml", "build"),
    ("http", "request"),
    ("json", "response"),
    ("text", "response"),
    ("python", "openai"),
    ("toml", "settings"),
    ("toml", "agent="),
    ("python", "agent="),
    ("python", "file="),  # run by test_project.py, as are the next two
    ("text", "file="),
    ("sh", "project"),
    ("python", "first-client"),  # run by test_first_clients.py, as is the next
    ("js", "first-client"),
    ("js", "client"),  # run by test_js_client.py
    ("js",),
    ("text", "chat"),
    ("text", "curl"),
    ("text",),
    ("sh",),
    ("sql",),
}

COMMANDS = list(pairs(DOCS["protocol"], "json command", "json answer"))
PYTHON = [pair for page in (README, DOCS["agents"]) for pair in pairs(page, "python agent=", "text chat")]
TOML = of_kind(DOCS["agents"], "toml", "agent=")


def ids(examples: list[Any]) -> list[str]:
    return [str(one[0] if isinstance(one, tuple) else one) for one in examples]


def write_agents(hub: Hub) -> None:
    """Host the agents of docs/agents.md, and the shipped echo as `main` too."""
    for block in of_kind(DOCS["agents"], "python", "agent="):
        hub.agent(f"{block.value('agent')}.py", block.text)
    echo = (ROOT / "agents" / "echo.py").read_text()
    hub.agent("echo.py", echo)
    hub.agent("main.py", echo.replace("def echo", "def main"))


def alike(said: Any, heard: Any, name: str = "", vary: set[str] = VOLATILE) -> bool:
    """Tell whether a frame is what the page says: the same fields, and the same values where these do not vary."""
    if name in vary:
        return type(said) is type(heard) and bool(heard)
    if isinstance(said, dict):
        varies = {"seq"} if said.get("stopReason") == "cancelled" else set()  # text may have come before, or not
        return (
            isinstance(heard, dict)
            and said.keys() == heard.keys()
            and all(alike(said[key], heard[key], key, vary) for key in said.keys() - varies)
        )
    if isinstance(said, list):
        return len(said) == len(heard) and all(alike(one, other, "", vary) for one, other in zip(said, heard))
    return bool(said == heard)


def logged(frame: dict[str, Any]) -> Event:
    """Return the event that the extended protocol says as *frame*."""
    kind = BODIES[frame["type"]]
    body = msgspec.convert({name: frame[name] for name in attrs.fields_dict(kind) if name in frame}, kind)
    where = (frame[name] for name in ("sessionId", "epoch", "seq", "ts"))
    return Event(frame.get("agentId"), frame.get("runId"), body, *where)


# --- the protocol -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", COMMANDS, ids=ids(COMMANDS))
async def test_a_command_of_the_protocol_page_is_answered_as_the_page_says(
    hub: Hub, example: tuple[Block, Block | None]
) -> None:
    """Each answer on the page comes, in the page's order, with the same fields."""
    command, answer = example
    write_agents(hub)
    await hub.start()
    client = await hub.connect(extended="extended" in command.info)
    for line in command.lines:
        await client.ws.send_str(line)
    for line in answer.lines if answer else ():
        said = json.loads(line)
        try:
            await client.until(lambda frame: alike(said, frame))
        except (TimeoutError, EOFError):
            pytest.fail(f"{answer} promises\n{line}\nbut there came\n" + "\n".join(map(json.dumps, client.frames)))
    await client.send(type="ping")
    await client.until_type("pong")
    if answer is None:
        assert not [frame for frame in client.frames if frame["type"] == "error"]


def test_every_command_that_the_hub_answers_shows_its_answer() -> None:
    """Only `typing` has none."""
    silent = [block for block, answer in COMMANDS if answer is None]
    assert [json.loads(line)["type"] for block in silent for line in block.lines] == ["typing"]


@pytest.mark.parametrize("block", of_kind(DOCS["protocol"], "json", "event"), ids=str)
def test_events_on_the_page_have_the_fields_of_their_class(block: Block) -> None:
    """Each one can be read as the event it shows, and the hub would write the same frame for it."""
    for line in block.lines:
        frame = json.loads(line)
        event = logged(frame)
        assert frame == said(open_protocol("hubbub.v1").event(event))


@pytest.mark.parametrize("block", of_kind(DOCS["protocol"], "json", "notice"), ids=str)
def test_notices_on_the_page_have_the_fields_of_their_class(block: Block) -> None:
    """Each one can be read as the notice it shows, and the hub would write the same frame for it."""
    for line in block.lines:
        frame = json.loads(line)
        fields = {name: value for name, value in frame.items() if name != "type"}
        assert fields.keys() <= attrs.fields_dict(NOTICES[frame["type"]]).keys()
        notice = msgspec.convert(fields, NOTICES[frame["type"]])
        assert frame == said(open_protocol("hubbub.v1").notice(notice))


@pytest.mark.parametrize("block", of_kind(DOCS["protocol"], "json", "plain"), ids=str)
def test_a_plain_frame_on_the_page_is_how_the_event_above_it_is_said(block: Block) -> None:
    """The last event shown before it, given to the plain protocol, makes this frame."""
    events = [one for one in of_kind(DOCS["protocol"], "json", "event") if one.line < block.line]
    frame = json.loads(events[-1].lines[-1])
    assert json.loads(block.text) == said(open_protocol("plain").event(logged(frame)))


def said(data: bytes) -> dict[str, Any]:
    """Return the one frame in *data*, parsed."""
    frame: dict[str, Any] = json.loads(data[data.index(b"{") :])
    return frame


# --- agents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", PYTHON, ids=ids(PYTHON))
async def test_an_agent_on_the_page_loads_and_says_what_the_page_says(
    hub: Hub, example: tuple[Block, Block | None]
) -> None:
    """`>` is what a user writes, the line below is the answer, `!` an error's code; `?` is asked, `<` answers it."""
    block, chat = example
    name = block.value("agent")
    write_agents(hub)
    hub.agent(f"{name}.py", block.text)
    await hub.start()
    agent = hub.node.agents.get(name)
    assert agent.description == ast.get_docstring(ast.parse(block.text))
    client = await hub.connect(f"?sessionId=s1&agentId={name}")
    if chat is None:
        await client.send(type="chat", message="hello")
        assert (await client.next())["type"] == "stream"
        return
    people = await hub.connect("?sessionId=s1", extended=True)
    asked = iter([line for line in chat.lines if line[:2] in ("? ", "< ")])
    said = [line for line in chat.lines if line[:2] not in ("? ", "< ")]
    for message, answer in zip(said[::2], said[1::2], strict=True):
        before = len(client.frames)
        await client.send(type="chat", message=message.removeprefix("> "))
        if f"{message}\n? " in chat.text:
            await answer_as_the_page_says(people, next(asked), next(asked))
        await client.until_done()
        heard = client.frames[before:]
        codes = [f"! {frame['code']}" for frame in heard if frame["type"] == "error"]
        text = "".join(frame["content"] for frame in heard if "content" in frame).strip()
        assert (codes or [text]) == [answer]


async def answer_as_the_page_says(people: Client, question: str, answer: str) -> None:
    asked = await people.until_type("interrupt")
    assert f"? {asked['message']}" == question
    payload = json.loads(answer.removeprefix("< "))
    await people.send(type="resume", sessionId="s1", interruptId=asked["id"], status="resolved", payload=payload)


@pytest.mark.parametrize("block", TOML, ids=str)
async def test_a_toml_agent_on_the_page_loads(block: Block, tmp_path: Path) -> None:
    """Its keys are known, and of the right types."""
    (tmp_path / f"{block.value('agent')}.toml").write_text(block.text)
    agents = Agents(folder=tmp_path, data=tmp_path / "data", cache=tmp_path)
    await agents.open()
    try:
        assert agents.get(block.value("agent")).description
    finally:
        await agents.close()


def install(folder: Path, setup: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package on sys.path, of one module with *code*, as pip would install it by the setup.cfg *setup*."""
    config = configparser.ConfigParser()
    config.read_string(setup)
    module = config["options"]["py_modules"]
    points = "".join(f"[{group}]{lines}\n" for group, lines in config["options.entry_points"].items())
    add_package(folder, config["metadata"]["name"], points, {module: code})
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(folder))


async def test_the_adapter_of_the_page_works(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_plugins: None
) -> None:
    """As a package with the entry point of the page, and an agent of its kind."""
    (code,) = of_kind(DOCS["agents"], "python", "adapter")
    (setup,) = of_kind(DOCS["agents"], "ini", "adapter")
    (build,) = of_kind(DOCS["agents"], "toml", "build")
    ((agent, chat),) = pairs(DOCS["agents"], "toml adapter=", "text chat")
    assert build.text.splitlines()[1:] == ['requires = ["setuptools"]', 'build-backend = "setuptools.build_meta"']
    install(tmp_path / "site", setup.text, code.text, monkeypatch)
    name = agent.value("adapter")
    hub.agent(f"{name}.toml", agent.text)
    await hub.start()
    client = await hub.connect(f"?agentId={name}")
    assert chat is not None
    message, answer = chat.lines
    await client.send(type="chat", message=message.removeprefix("> "))
    await client.until_done()
    assert client.text() == answer


@pytest.mark.parametrize("block", of_kind(DOCS["protocol"], "json", "envelope"), ids=str)
def test_the_envelopes_of_the_page_are_said_of_its_events(block: Block) -> None:
    """Each line is what the envelope says of the event with its number."""
    events = [json.loads(line) for one in of_kind(DOCS["protocol"], "json", "event") for line in one.lines]
    for line in block.lines:
        said = json.loads(line)
        (event,) = [one for one in events if said["id"] == f"{one['epoch']}:{one['seq']}"]
        kept = logged(event)
        frame = open_protocol("hubbub.events").event(kept)
        assert json.loads(frame[frame.index(b"{") :]) == said


async def test_the_protocol_of_the_page_works(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_plugins: None
) -> None:
    """As a package with the entry point of the page."""
    (code,) = of_kind(DOCS["protocol"], "python", "protocol")
    (setup,) = of_kind(DOCS["protocol"], "ini", "protocol")
    install(tmp_path / "site", setup.text, code.text, monkeypatch)
    write_agents(hub)
    await hub.start()
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{hub.url}/api/v1/ws?agentId=echo", protocols=["example.lines"]) as ws:
            await ws.send_str("hello there")
            heard = ""
            while not heard.endswith("\n"):
                heard += (await ws.receive(PATIENCE)).data
    assert heard == "hello there \n"


# --- HTTP -------------------------------------------------------------------------------------------------------------

REQUESTS = list(pairs(DOCS["api"], "http request", "json response")) + list(
    pairs(DOCS["api"], "http request", "text response")
)
ANSWERED = [pair for pair in REQUESTS if pair[1] is not None]


async def request(hub: Hub, text: str) -> tuple[int, str]:
    """Send what an example shows: a line, headers, and after an empty line the body."""
    head, _, body = text.partition("\n\n")
    line, *headers = head.splitlines()
    method, path = line.split()
    told = dict(header.split(": ", 1) for header in headers)
    async with aiohttp.ClientSession(headers=told) as http:
        async with http.request(method, hub.url + path, data=body.strip() or None) as response:
            return response.status, await response.text()


@pytest.mark.parametrize("example", ANSWERED, ids=ids(ANSWERED))
async def test_a_request_of_the_page_is_answered_as_the_page_says(hub: Hub, example: tuple[Block, Block]) -> None:
    """With the status that the fence names, else 200; in one that is `like` the answer, ... is anything."""
    asked, answer = example
    write_agents(hub)
    await hub.start()
    text = asked.text
    for before, made in ANSWERED:  # what the example needs is made by the one that shows how
        assert before is not None and made is not None
        if (found := re.search(r'"fileId": "(\w+)"', made.text)) and f"/{found[1]}\n" in text:
            _, said = await request(hub, before.text)
            text = text.replace(found[1], json.loads(said)["fileId"])
    for one in re.split(r"^(?=[A-Z]+ /)", text, flags=re.MULTILINE)[1:]:  # of several, the last is answered
        status, heard = await request(hub, one)
    assert status == int(next((word for word in answer.info if word.isdigit()), "200")), heard
    if "like" in answer.info:
        assert re.fullmatch(re.escape(answer.text.strip()).replace(re.escape("..."), "(?s:.*?)"), heard.strip()), heard
    elif answer.info[0] == "json":
        assert alike(json.loads(answer.text), json.loads(heard), vary=VOLATILE_THERE), heard
    else:
        assert heard == answer.text.strip()


@needs_curl
async def test_the_upload_by_curl_works(hub: Hub, tmp_path: Path) -> None:
    """The file has the type that the line names."""
    await hub.start()
    (tmp_path / "notes.txt").write_text("Otters hold hands.")
    (block,) = of_kind(DOCS["api"], "text", "curl")
    words = shlex.split(block.text.replace("http://localhost:9527", hub.url))
    process = await asyncio.create_subprocess_exec(*words, cwd=tmp_path, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
    assert {"name": "notes.txt", "type": "text/plain", "size": 18}.items() <= json.loads(out).items()


def test_every_request_of_the_page_has_its_answer() -> None:
    """An example without one would show nothing."""
    asked = of_kind(DOCS["api"], "http", "request")
    assert {block.line for block in asked} == {block.line for block, _ in ANSWERED}


async def test_every_route_is_on_the_page(hub: Hub) -> None:
    """By its method and path, under the base."""
    await hub.start()
    shown = {tuple(row[0].strip("`").split()) for row in rows(DOCS["api"])}
    base = "/api/v1"
    routes = {
        (route.method, route.resource.canonical) for route in make_app(hub.door).router.routes() if route.resource
    }
    mine = {(method, path.removeprefix(base)) for method, path in routes if path.startswith(base)}
    assert {pair for pair in mine if pair[0] in ("GET", "POST", "PATCH", "DELETE")} - {("GET", "/ws")} == {
        pair for pair in shown if len(pair) == 2
    }


def test_every_route_of_the_page_has_an_example() -> None:
    """But the WebSocket, whose frames the protocol page shows."""
    routes = {" ".join(pair) for row in rows(DOCS["api"]) if len(pair := row[0].strip("`").split()) == 2}
    asked = [line for block in of_kind(DOCS["api"], "http", "request") for line in block.lines]
    for route in routes - {"GET /agents/{agentId}/ws"}:
        method, path = route.split()
        place = re.sub(r"\\{\w+\\}", r"[^/?]+", re.escape(path))
        assert any(re.fullmatch(rf"{method} (/api)?(/v1)?{place}(\?.*)?", line) for line in asked), route


async def test_the_openai_example_works(hub: Hub) -> None:
    """As it stands, but for the port."""
    (block,) = of_kind(DOCS["api"], "python", "openai")
    write_agents(hub)
    await hub.start()
    code = block.text.replace("localhost:9527", f"127.0.0.1:{hub.port}")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert out.decode() == "hello there "


@pytest.mark.parametrize("block", of_kind(DOCS["clients-python"], "python", "client"), ids=str)
async def test_a_program_of_the_python_clients_page_runs(hub: Hub, block: Block) -> None:
    """Against a hub in which something was said; it prints what its agent says."""
    write_agents(hub)
    await hub.start()
    client = await hub.connect(extended=True)
    await client.send(type="chat", agentId="main", sessionId="session-001", message="Before!")
    await client.until_done()
    code = re.sub(r"connect\([^)]*\)", f'connect("ws://127.0.0.1:{hub.port}/api/v1/ws")', block.text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    wanted = "main end_turn" if "subscribe" in code else "live" if "states" in code else "how are you?"
    try:
        async with asyncio.timeout(PATIENCE):
            said = ""
            while wanted not in said:
                line = await process.stdout.readline()
                assert line, said
                said += line.decode()
    finally:
        if process.returncode is None and "subscribe" in code:
            process.kill()  # it listens for ever
        await process.communicate()
    assert "Traceback" not in said and ("subscribe" in code or process.returncode == 0)


# --- settings and commands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", of_kind(DOCS["start"], "toml", "settings"), ids=str)
def test_the_settings_on_the_page_are_accepted(block: Block, tmp_path: Path) -> None:
    """They are read, and change something."""
    (tmp_path / "hubbub.toml").write_text(block.text)
    assert load({}, {}, tmp_path) != load({}, {}, tmp_path / "nothing")


SHELL = [
    (block, line) for page in PAGES for block in of_kind(page, "sh") for line in block.lines if block.info == ("sh",)
]


@pytest.mark.parametrize(("block", "line"), SHELL, ids=[f"{block}-{line}" for block, line in SHELL])
def test_a_shell_command_on_the_page_is_there(block: Block, line: str) -> None:
    """A make target, a command of hubbub, or a variable that the hub reads."""
    words = line.split()
    if words[0] == "make":
        assert re.search(rf"^{re.escape(words[1])}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == "export":
        variable = words[1].partition("=")[0]
        assert any(variable in path.read_text() for path in (ROOT / "hub" / "adapters").glob("*.py"))
    else:
        assert words[0] == ".venv/bin/hubbub", f"{block}: who runs {line!r}?"
        result = CliRunner().invoke(cli, [*words[1:], *([] if words[1].startswith("--") else ["--help"])])
        assert result.exit_code == 0, result.output


def test_the_query_on_the_page_reads_the_log(tmp_path: Path) -> None:
    """The history is a table, with these columns."""
    (block,) = of_kind(DOCS["operations"], "sql")
    database = sqlite3.connect(tmp_path / "hub.db")
    try:
        database.create_function("as_loose", -1, event_to_commit)
        database.executescript("".join(map(textwrap.dedent, MIGRATIONS)))
        assert database.execute(block.text).fetchall() == []
    finally:
        database.close()


# --- when something goes wrong ----------------------------------------------------------------------------------------

SAID = {cell.split("`")[1] for row in rows(DOCS["start"]) for cell in row[:1] if cell.count("`") >= 2}


def on_the_page(line: str, *varying: tuple[str, str]) -> bool:
    """Tell whether the start page shows this line of the hub, after (what is here, what the page has) was replaced."""
    for here, there in varying:
        line = line.replace(here, there)
    return any(line == one or one.endswith(" ...") and line.startswith(one[:-4]) for one in SAID)


async def refused(folder: Path, *arguments: str, **environ: str) -> str:
    """Start a hub that must not start, and return its one line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "serve", *arguments),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        (line,) = (await process.stderr.read()).decode().splitlines()
        assert await process.wait() == 2
    return line.removeprefix("hubbub: ")


async def test_a_hub_that_cannot_start_says_what_the_page_says(hub: Hub, tmp_path: Path) -> None:
    """Its port or its data is taken, its folder is missing, or its settings are wrong."""
    await hub.start()
    port = str(hub.port)
    taken = await refused(tmp_path, "--host", "127.0.0.1", "--port", port, "--data", "other")
    name = Path("/proc/self/comm").read_text().strip()
    holder = (f"{name} (pid {os.getpid()})", "python3 (pid 4711)")
    assert on_the_page(taken, (port, "9527"), holder)
    locked = await refused(tmp_path, "--port", "0")
    assert on_the_page(locked, (str(tmp_path), "/home/you/hubbub"), (f"pid {os.getpid()}", "pid 4711"))
    assert on_the_page(await refused(tmp_path, "--host", "0.0.0.0"))
    assert on_the_page(await refused(tmp_path, HUBBUB_PROT="1"))
    (tmp_path / "hubbub.toml").write_text("[hubbub]\nprot = 1\n")
    assert on_the_page(await refused(tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert on_the_page(await refused(empty, "--port", "0"), (str(empty), "/home/you/hubbub"))


@pytest.mark.parametrize(
    ("header", "value"), [("Origin", "null"), ("Origin", "https://a.example"), ("Host", "a.example")]
)
async def test_a_page_that_may_not_come_in_is_named_as_the_page_says(hub: Hub, header: str, value: str) -> None:
    """The hub's output has the words to look for, and the setting to change."""
    await hub.start()
    with capture_logs() as logs:
        async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/ready", headers={header: value}) as response:
            assert response.status == 403
            assert (await response.json())["code"] == "refused"
    (line,) = logs
    assert line["event"] in SAID and line["value"] == repr(value)
    assert "`origins`" in line["hint"] or "`hosts`" in line["hint"]
    assert ("python3 -m http.server" in line["hint"]) == (value == "null")


# --- all pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_run(page: Path) -> None:
    """A block with other words after its fence would be run by nothing."""
    for block in blocks(page):
        kinds = {kind for kind in KNOWN if len(kind) <= len(block.info)}
        shown = tuple(word.partition("=")[0] + "=" if "=" in word else word for word in block.info)
        assert any(shown[: len(kind)] == kind and (len(kind) > 1 or len(shown) == 1) for kind in kinds), str(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading that it has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}, target
