"""Run every example of README and docs/ on this hub."""

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
from support.process import HubProcess, make_environment, needs_curl
from support.waiting import PATIENCE

from hub.cli.main import cli
from hub.hosting.folder import Agents
from hub.ids import Key
from hub.messages import BODIES, NOTICES, Event
from hub.node.history import read_history
from hub.protocols import open_protocol
from hub.setting_sources import load_settings
from hub.storage.sqlite.event_rows import event_to_commit
from hub.storage.sqlite.migrations import MIGRATIONS
from hub.web.app import make_app

# Fields whose values differ in each run, or are the test's own: only their types are compared.
VOLATILE = {"runId", "messageId", "epoch", "connectionId", "ts", "runIds", "messageIds", "agents", "version"}
VOLATILE_OVER_HTTP = VOLATILE | {"id", "created", "data", "size", "fileId", "inviteId", "expires", "link", "ticket"}
BLOCK_KINDS = {
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
    ("sh", "operator"),
    ("sh", "server"),  # run by test_systemd_unit.py
    ("sh", "wheel"),  # run by test_bare_environment.py
    ("sh", "client"),  # run by test_bare_client.py
    ("text", "traces"),  # run by test_tracing.py
    ("text", "banner"),  # run by test_operations.py, as is the next
    ("text", "nginx"),
    ("text", "caddy"),  # run by test_proxy_paths.py
    ("python", "first-client"),  # run by test_first_clients.py, as is the next
    ("js", "first-client"),
    ("js", "client"),  # run by test_js_client.py
    ("jsx", "component"),  # run by tests/clients/test_react.py and test_copilotkit.py
    ("js", "copilotkit"),  # run by tests/clients/test_agui_clients.py
    ("jsx", "assistant-ui"),  # run by tests/clients/test_assistant_ui.py
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


def example_ids(examples: list[Any]) -> list[str]:
    return [str(example[0] if isinstance(example, tuple) else example) for example in examples]


def write_agents(hub: Hub) -> None:
    """Host the agents of docs/agents.md, and the shipped echo as `main` too."""
    for block in of_kind(DOCS["agents"], "python", "agent="):
        hub.agent(f"{block.value('agent')}.py", block.text)
    echo = (ROOT / "agents" / "echo.py").read_text()
    hub.agent("echo.py", echo)
    hub.agent("main.py", echo.replace("def echo", "def main"))


def is_alike(expected: Any, actual: Any, name: str = "", volatile: set[str] = VOLATILE) -> bool:
    """Return whether a frame is as the page shows: the same fields, with the same values unless these are volatile."""
    if name in volatile:
        return type(expected) is type(actual) and bool(actual)
    if isinstance(expected, dict):
        varies = {"seq"} if expected.get("stopReason") == "cancelled" else set()  # text may come before the end, or not
        return (
            isinstance(actual, dict)
            and expected.keys() == actual.keys()
            and all(is_alike(expected[key], actual[key], key, volatile) for key in expected.keys() - varies)
        )
    if isinstance(expected, list):
        pairs_of_items = zip(expected, actual)
        return len(expected) == len(actual) and all(is_alike(*items, "", volatile) for items in pairs_of_items)
    return bool(expected == actual)


def event_of(frame: dict[str, Any]) -> Event:
    """Return the event that the extended protocol encodes as *frame*."""
    kind = BODIES[frame["type"]]
    body = msgspec.convert({name: frame[name] for name in attrs.fields_dict(kind) if name in frame}, kind)
    position = (frame[name] for name in ("sessionId", "epoch", "seq", "ts"))
    return Event(frame.get("agentId"), frame.get("runId"), body, *position)


# --- the protocol -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", COMMANDS, ids=example_ids(COMMANDS))
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
        expected = json.loads(line)
        try:
            await client.until(lambda frame: is_alike(expected, frame))
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
    """Each frame decodes to an event, and the hub encodes that event as the same frame."""
    for line in block.lines:
        frame = json.loads(line)
        event = event_of(frame)
        assert frame == parse_frame(open_protocol("hubbub.v1").event(event))


@pytest.mark.parametrize("block", of_kind(DOCS["protocol"], "json", "notice"), ids=str)
def test_notices_on_the_page_have_the_fields_of_their_class(block: Block) -> None:
    """Each frame decodes to a notice, and the hub encodes that notice as the same frame."""
    for line in block.lines:
        frame = json.loads(line)
        fields = {name: value for name, value in frame.items() if name != "type"}
        assert fields.keys() <= attrs.fields_dict(NOTICES[frame["type"]]).keys()
        notice = msgspec.convert(fields, NOTICES[frame["type"]])
        assert frame == parse_frame(open_protocol("hubbub.v1").notice(notice))


@pytest.mark.parametrize("block", of_kind(DOCS["protocol"], "json", "plain"), ids=str)
def test_a_plain_frame_on_the_page_is_the_event_above_it_in_the_plain_protocol(block: Block) -> None:
    """The plain protocol encodes the last event before the frame as this frame."""
    events = [example for example in of_kind(DOCS["protocol"], "json", "event") if example.line < block.line]
    frame = json.loads(events[-1].lines[-1])
    assert json.loads(block.text) == parse_frame(open_protocol("plain").event(event_of(frame)))


def parse_frame(data: bytes) -> dict[str, Any]:
    """Return the frame in *data*, decoded."""
    frame: dict[str, Any] = json.loads(data[data.index(b"{") :])
    return frame


# --- agents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", PYTHON, ids=example_ids(PYTHON))
async def test_an_agent_on_the_page_gives_the_answers_of_the_page(
    hub: Hub, example: tuple[Block, Block | None]
) -> None:
    """`>` begins a message, then comes the answer, or `!` and an error code; `?` begins a question, `<` a reply."""
    block, chat = example
    name = block.value("agent")
    write_agents(hub)
    hub.agent(f"{name}.py", block.text)
    await hub.start()
    agent = hub.node.agents.get_working(name)
    assert agent.description == ast.get_docstring(ast.parse(block.text))
    client = await hub.connect(f"?sessionId=s1&agentId={name}")
    if chat is None:
        await client.send(type="chat", message="hello")
        assert (await client.next())["type"] == "stream"
        return
    people = await hub.connect("?sessionId=s1", extended=True)
    questions = iter([line for line in chat.lines if line[:2] in ("? ", "< ")])
    lines = [line for line in chat.lines if line[:2] not in ("? ", "< ")]
    for message, answer in zip(lines[::2], lines[1::2], strict=True):
        old_frames = len(client.frames)
        await client.send(type="chat", message=message.removeprefix("> "))
        if f"{message}\n? " in chat.text:
            await reply_as_on_the_page(people, next(questions), next(questions))
        await client.until_done()
        frames = client.frames[old_frames:]
        codes = [f"! {frame['code']}" for frame in frames if frame["type"] == "error"]
        text = "".join(frame["content"] for frame in frames if "content" in frame).strip()
        assert (codes or [text]) == [answer]


async def reply_as_on_the_page(people: Client, question: str, answer: str) -> None:
    interrupt = await people.until_type("interrupt")
    assert f"? {interrupt['message']}" == question
    payload = json.loads(answer.removeprefix("< "))
    await people.send(type="resume", sessionId="s1", interruptId=interrupt["id"], status="resolved", payload=payload)


@pytest.mark.parametrize("block", TOML, ids=str)
async def test_a_toml_agent_on_the_page_loads(block: Block, tmp_path: Path) -> None:
    """Its keys are known, and of the right types."""
    (tmp_path / f"{block.value('agent')}.toml").write_text(block.text)
    agents = Agents(folder=tmp_path, data=tmp_path / "data", cache=tmp_path)
    await agents.open()
    try:
        assert agents.get_working(block.value("agent")).description
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
    """It is a package with the entry point of the page; an agent uses it."""
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
def test_the_envelopes_of_the_page_are_its_events_in_the_envelope_protocol(block: Block) -> None:
    """Each line is the envelope of the event with the same number."""
    events = [json.loads(line) for example in of_kind(DOCS["protocol"], "json", "event") for line in example.lines]
    for line in block.lines:
        envelope = json.loads(line)
        (event,) = [event for event in events if envelope["id"] == f"{event['epoch']}:{event['seq']}"]
        assert parse_frame(open_protocol("hubbub.events").event(event_of(event))) == envelope


async def test_the_protocol_of_the_page_works(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_plugins: None
) -> None:
    """It is a package with the entry point of the page."""
    (code,) = of_kind(DOCS["protocol"], "python", "protocol")
    (setup,) = of_kind(DOCS["protocol"], "ini", "protocol")
    install(tmp_path / "site", setup.text, code.text, monkeypatch)
    write_agents(hub)
    await hub.start()
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{hub.url}/api/v1/ws?agentId=echo", protocols=["example.lines"]) as ws:
            await ws.send_str("hello there")
            text = ""
            while not text.endswith("\n"):
                text += (await ws.receive(PATIENCE)).data
    assert text == "hello there \n"


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
    values = dict(header.split(": ", 1) for header in headers)
    async with aiohttp.ClientSession(headers=values) as http:
        async with http.request(method, hub.url + path, data=body.strip() or None) as response:
            return response.status, await response.text()


@pytest.mark.parametrize("example", ANSWERED, ids=example_ids(ANSWERED))
async def test_a_request_of_the_page_is_answered_as_the_page_says(hub: Hub, example: tuple[Block, Block]) -> None:
    """The fence names the status, else it is 200. In an answer that is `like` the example, ... is any text."""
    block, answer = example
    write_agents(hub)
    await hub.start()
    text = block.text
    for upload, result in ANSWERED:  # a file of the example is uploaded by another example
        assert upload is not None and result is not None
        file_id = re.search(r'"fileId": "(\w+)"', result.text)
        if file_id and (f"/{file_id[1]}\n" in text or f'"{file_id[1]}"' in text):
            _, body = await request(hub, upload.text)
            text = text.replace(file_id[1], json.loads(body)["fileId"])
    for step in re.split(r"^(?=[A-Z]+ /)", text, flags=re.MULTILINE)[1:]:  # the page shows the last answer only
        status, body = await request(hub, step)
    assert status == int(next((word for word in answer.info if word.isdigit()), "200")), body
    if "like" in answer.info:
        assert re.fullmatch(re.escape(answer.text.strip()).replace(re.escape("..."), "(?s:.*?)"), body.strip()), body
    elif answer.info[0] == "json":
        assert is_alike(json.loads(answer.text), json.loads(body), volatile=VOLATILE_OVER_HTTP), body
    else:
        assert body == answer.text.strip()


@needs_curl
@pytest.mark.parametrize("block", of_kind(DOCS["api"], "text", "curl"), ids=["form", "body"])
async def test_the_upload_by_curl_works(hub: Hub, tmp_path: Path, block: Block) -> None:
    """The file has the type of its name."""
    await hub.start()
    (tmp_path / "notes.txt").write_text("Otters hold hands.")
    words = shlex.split(block.text.replace("http://localhost:9527", hub.url))
    process = await asyncio.create_subprocess_exec(*words, cwd=tmp_path, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        out, _ = await process.communicate()
    assert {"name": "notes.txt", "type": "text/plain", "size": 18}.items() <= json.loads(out).items()


def test_every_request_of_the_page_has_its_answer() -> None:
    """No request stands alone."""
    requests = of_kind(DOCS["api"], "http", "request")
    assert {block.line for block in requests} == {block.line for block, _ in ANSWERED}


async def test_every_route_is_on_the_page(hub: Hub) -> None:
    """The page has its method and path."""
    await hub.start()
    documented = {tuple(row[0].strip("`").split()) for row in rows(DOCS["api"])}
    base = "/api/v1"
    routes = {
        (route.method, route.resource.canonical) for route in make_app(hub.door).router.routes() if route.resource
    }
    routes -= {(method, f"{path}/") for method, path in routes}  # OpenAI's routes may end with a slash
    api_routes = {(method, path.removeprefix(base)) for method, path in routes if path.startswith(base)}
    assert {pair for pair in api_routes if pair[0] in ("GET", "POST", "PUT", "PATCH", "DELETE")} - {("GET", "/ws")} == {
        pair for pair in documented if len(pair) == 2
    }


def test_every_route_of_the_page_has_an_example() -> None:
    """The WebSocket has none: the protocol page shows its frames."""
    routes = {" ".join(pair) for row in rows(DOCS["api"]) if len(pair := row[0].strip("`").split()) == 2}
    lines = [line for block in of_kind(DOCS["api"], "http", "request") for line in block.lines]
    for route in routes - {"GET /agents/{agentId}/ws"}:
        method, path = route.split()
        pattern = re.sub(r"\\{\w+\\}", r"[^/?]+", re.escape(path))
        assert any(re.fullmatch(rf"{method} (/api)?(/v1)?{pattern}(\?.*)?", line) for line in lines), route


async def test_the_openai_examples_work(hub: Hub) -> None:
    """The blocks are one program, in which only the port is replaced. Two of its requests have one idempotency key."""
    start, keyed = of_kind(DOCS["api"], "python", "openai")
    write_agents(hub)
    await hub.start()
    code = (start.text + 2 * keyed.text).replace("localhost:9527", f"127.0.0.1:{hub.port}")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert out.decode() == "hello there "
    assert len(await read_history(hub.node, Key("s1"), 9)) == 2


@pytest.mark.parametrize("block", of_kind(DOCS["clients-python"], "python", "client"), ids=str)
async def test_a_program_of_the_python_clients_page_runs(hub: Hub, block: Block) -> None:
    """The hub has a session with a message; the program prints its events or its answer.

    With sign-in, the session belongs to the principal of the program's token.
    """
    write_agents(hub)
    hub.options["sign_in"] = "token=" in block.text
    await hub.start()
    key = await hub.key("me")
    client = await hub.connect(extended=True, headers={"Authorization": f"Bearer {key}"})
    await client.send(type="chat", agentId="main", sessionId="session-001", message="Before!")
    await client.until_done()
    code = re.sub(r'connect\(("[^"]*")?', f'connect("ws://127.0.0.1:{hub.port}/api/v1/ws"', block.text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env={**os.environ, "PYTHONPATH": str(ROOT), "TOKEN": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    words = {"subscribe": "main end_turn", "states": "live", "list_files": "file 18"}
    wanted = next((output for word, output in words.items() if word in code), "how are you?")
    try:
        async with asyncio.timeout(PATIENCE):
            output = ""
            while wanted not in output:
                line = await process.stdout.readline()
                assert line, output
                output += line.decode()
    finally:
        if process.returncode is None and "subscribe" in code:
            process.kill()  # the program listens until it is stopped
        await process.communicate()
    assert "Traceback" not in output and ("subscribe" in code or process.returncode == 0)


# --- settings and commands --------------------------------------------------------------------------------------------


SETTINGS = [block for page in PAGES for block in of_kind(page, "toml", "settings")]


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_the_settings_on_the_page_are_accepted(block: Block, tmp_path: Path) -> None:
    """They are read, and change something."""
    (tmp_path / "hubbub.toml").write_text(block.text)
    assert load_settings({}, {}, tmp_path) != load_settings({}, {}, tmp_path / "nothing")


SHELL = [
    (block, line) for page in PAGES for block in of_kind(page, "sh") for line in block.lines if block.info == ("sh",)
]


@pytest.mark.parametrize(("block", "line"), SHELL, ids=[f"{block}-{line}" for block, line in SHELL])
def test_a_shell_command_on_the_page_exists(block: Block, line: str) -> None:
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


@needs_curl
async def test_the_operators_commands_of_the_page_work(tmp_path: Path) -> None:
    """In the order of the page, on a running hub. The id of the key on the page stands for that of a new key."""
    lines = [line for block in of_kind(DOCS["operations"], "sh", "operator") for line in block.lines]
    process = HubProcess(tmp_path)
    key_ids: list[str] = []
    try:
        await process.start(sign_in=True)
        for line in lines:
            command = line.replace(".venv/bin/hubbub", f"{sys.executable} -m hub")
            command = command.replace("0123456789abcdef", key_ids[-1] if key_ids else "")
            shell = await asyncio.create_subprocess_shell(
                command,
                cwd=tmp_path,
                env=make_environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            async with asyncio.timeout(2 * PATIENCE):
                output = (await shell.communicate())[0].decode()
            assert shell.returncode == 0 and '"error"' not in output, f"{line}: {output}"
            key_ids += re.findall(r"hk_([0-9a-f]{16})_", output)
    finally:
        await process.kill()


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

MESSAGES = {cell.split("`")[1] for row in rows(DOCS["start"]) for cell in row[:1] if cell.count("`") >= 2}


def is_on_the_page(line: str, *varying: tuple[str, str]) -> bool:
    """Return whether the start page has this line, after replacing each (value here, value on the page)."""
    for value, page_value in varying:
        line = line.replace(value, page_value)
    return any(line == text or text.endswith(" ...") and line.startswith(text[:-4]) for text in MESSAGES)


async def start_and_fail(folder: Path, *arguments: str, **environ: str) -> str:
    """Start a hub that cannot start, and return its line of output."""
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


async def test_a_hub_that_cannot_start_prints_a_line_of_the_page(hub: Hub, tmp_path: Path) -> None:
    """The port or the data folder is in use, the agents folder is missing, or the settings are wrong."""
    await hub.start()
    port = str(hub.port)
    port_line = await start_and_fail(tmp_path, "--host", "127.0.0.1", "--port", port, "--data", "other")
    name = Path("/proc/self/comm").read_text().strip()
    holder = (f"{name} (pid {os.getpid()})", "python3 (pid 4711)")
    assert is_on_the_page(port_line, (port, "9527"), holder)
    lock_line = await start_and_fail(tmp_path, "--port", "0")
    assert is_on_the_page(lock_line, (str(tmp_path), "/home/you/hubbub"), (f"pid {os.getpid()}", "pid 4711"))
    assert is_on_the_page(await start_and_fail(tmp_path, "--host", "0.0.0.0"))
    assert is_on_the_page(await start_and_fail(tmp_path, HUBBUB_PROT="1"))
    (tmp_path / "hubbub.toml").write_text("[hubbub]\nprot = 1\n")
    assert is_on_the_page(await start_and_fail(tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert is_on_the_page(await start_and_fail(empty, "--port", "0"), (str(empty), "/home/you/hubbub"))


@pytest.mark.parametrize(
    ("header", "value"), [("Origin", "null"), ("Origin", "https://a.example"), ("Host", "a.example")]
)
async def test_the_log_names_a_refused_origin_as_the_page_shows(hub: Hub, header: str, value: str) -> None:
    """The hub's output has the words to look for, and the setting to change."""
    await hub.start()
    with capture_logs() as logs:
        async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/ready", headers={header: value}) as response:
            assert response.status == 403
            assert (await response.json())["code"] == "refused"
    (line,) = logs
    assert line["event"] in MESSAGES and line["value"] == repr(value)
    assert f'origins = ["{value}"]' in line["hint"] or f'hosts = ["{value}"]' in line["hint"]
    assert ("python3 -m http.server" in line["hint"]) == (value == "null")


# --- all pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_of_a_kind_that_is_run(page: Path) -> None:
    """A block with other words after its fence would be run by nothing."""
    for block in blocks(page):
        kinds = {kind for kind in BLOCK_KINDS if len(kind) <= len(block.info)}
        words = tuple(word.partition("=")[0] + "=" if "=" in word else word for word in block.info)
        assert any(words[: len(kind)] == kind and (len(kind) > 1 or len(words) == 1) for kind in kinds), str(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_has_a_target(page: Path) -> None:
    """The file exists and has the heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
            }, target
