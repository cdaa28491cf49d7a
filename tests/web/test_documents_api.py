"""The OpenAPI and AsyncAPI documents are valid and complete, and describe what the hub does."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import jsonschema
import pytest
from openapi_spec_validator import validate
from playwright.async_api import async_playwright
from support.browser import CHROMIUM, needs_browser
from support.hub import Hub
from support.node import install_packages, needs_node
from support.process import needs_curl
from support.waiting import PATIENCE

from hub.ids import Key
from hub.messages import BODIES, COMMANDS, NOTICES
from hub.protocols.envelope import ENVELOPE_TYPES
from hub.web.api.documents import REFERENCE_FOLDER
from hub.web.app import ROUTES, make_app

EVERYTHING = """
from hub import (Custom, Finish, Progress, Reasoning, Run, StateDelta, StateSnapshot, StepFinished, StepStarted,
    ToolCallArgs, ToolCallEnd, ToolCallResult, ToolCallStart, Usage)

async def everything(run: Run):
    yield Reasoning("hm")
    yield ToolCallStart("c1", "search")
    yield ToolCallArgs("c1", "{}")
    yield ToolCallEnd("c1")
    yield ToolCallResult("c1", "found", isError=True)
    yield Progress(0.5, "half")
    yield StepStarted("one")
    yield StepFinished("one")
    yield Custom("mine", {"a": 1})
    yield StateSnapshot({"a": 1})
    yield StateDelta([{"op": "add", "path": "/b", "value": 2}])
    yield "text"
    if run.message == "fail":
        raise ValueError
    yield Finish("max_tokens", Usage(1, 2))
"""
# Asks a question, and withdraws it at once.
ASKS = """
import asyncio

async def asking(run):
    try:
        async with asyncio.timeout(0):
            await run.ask("Go on?")
    except TimeoutError:
        yield "no"
"""


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[aiohttp.ClientSession]:
    hub.agent("everything.py", EVERYTHING)
    hub.agent("asking.py", ASKS)
    await hub.start()
    async with aiohttp.ClientSession(hub.url, timeout=aiohttp.ClientTimeout(PATIENCE)) as http:
        yield http


async def read_text(http: aiohttp.ClientSession, name: str) -> str:
    async with http.get(name) as answer:
        return await answer.text()


async def read(http: aiohttp.ClientSession, name: str) -> Any:
    async with http.get(name) as answer:
        assert answer.status == 200 and answer.content_type == "application/json"
        return await answer.json()


def make_validator(document: Any, schema: Any) -> jsonschema.Draft202012Validator:
    """Return a validator for a schema that refers to components of the document."""
    return jsonschema.Draft202012Validator({"components": document["components"], **schema})


@pytest.mark.parametrize("name", ["/openapi.json", "/asyncapi.json"])
async def test_a_document_is_served_at_the_root_and_under_the_base(http: aiohttp.ClientSession, name: str) -> None:
    """Both are equal."""
    assert await read(http, name) == await read(http, "/api/v1" + name)


async def test_the_openapi_document_is_valid(http: aiohttp.ClientSession) -> None:
    """Valid by the specification of OpenAPI. Each operation has a unique id, and a summary that is a sentence."""
    document = await read(http, "/openapi.json")
    validate(document)
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in operations]
    assert len(names) == len(set(names)) and all(one["summary"].endswith(".") for one in operations)


async def test_the_openapi_document_suits_generators_of_clients(http: aiohttp.ClientSession) -> None:
    """The ids of operations are short, without their path, for they name functions. Each JSON body has a named schema.

    Integers have 64 bits. Generators fail on `default: null`, and on schemas whose only value is true or false.
    """
    text = await read_text(http, "/openapi.json")
    assert '"default":null' not in text and not re.search(r'"(const":|enum":\[)(true|false)', text)
    assert text.count('"type":"integer"') == text.count('"format":"int64"') > 0
    document = json.loads(text)
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    for operation in operations:
        assert re.fullmatch("[a-z]+(_[a-z0-9]+){1,4}", operation["operationId"]) and len(operation["operationId"]) <= 30
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            for media, content in part.get("content", {}).items():
                is_named = re.fullmatch("#/components/schemas/[A-Za-z]+", content["schema"].get("$ref", ""))
                choices = content["schema"].get("anyOf", [content["schema"]])
                assert is_named if media == "application/json" else choices[0]["type"] == "string" and "*" not in media


async def test_the_openapi_document_has_exactly_the_routes_of_the_app(hub: Hub, http: aiohttp.ClientSession) -> None:
    """Except HEAD (part of GET), OPTIONS (preflights), paths that end with a slash, and the pages for browsers."""
    routes = {
        (route.method, route.resource.canonical) for route in make_app(hub.door).router.routes() if route.resource
    } - {(route.method, base + route.path) for route in ROUTES if route.tag == "Pages" for base in route.prefixes}
    paths = (await read(http, "/openapi.json"))["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    slash_forms = {(method, f"{path}/") for method, path in routes}
    assert {one for one in routes - slash_forms if one[0] not in ("HEAD", "OPTIONS")} == documented


async def test_the_openapi_document_has_the_statuses_of_each_route(http: aiohttp.ClientSession) -> None:
    """The statuses of its own errors, of a bad body, and of the middlewares."""
    paths = (await read(http, "/openapi.json"))["paths"]
    chat = paths["/api/v1/sessions/{id}/chat"]["post"]["responses"]
    assert set(chat) == {"200", "202", *"400 401 403 404 408 409 413 422 429 499 500 502 503 504 505".split()}
    assert "`busy`" in chat["429"]["description"]
    for path in ("/api/v1/ws", "/api/v1/agents/{agentId}/ws"):  # a WebSocket over HTTP/1.0 is refused
        assert "`http_version_not_supported`" in paths[path]["get"]["responses"]["505"]["description"]
        assert "`draining`" in paths[path]["get"]["responses"]["503"]["description"]
    assert "`agent_broken`" in paths["/api/v1/agents/{agentId}/ws"]["get"]["responses"]["503"]["description"]
    assert set(paths["/health"]["get"]["responses"]) == {"200", "403", "500"}
    openai = paths["/v1/chat/completions"]["post"]["responses"]
    forms = {status: openai[status]["content"]["application/json"]["schema"]["$ref"] for status in ("403", "505")}
    assert all(form.endswith("/OpenAIErrorBody") for form in forms.values())


@pytest.mark.parametrize("path", ["sessions", "sessions/{id}/chat", "files", "agents/{id}/agui", "chat/completions"])
async def test_routes_that_create_sessions_document_session_deleted(http: aiohttp.ClientSession, path: str) -> None:
    route = (await read(http, "/openapi.json"))["paths"][f"/api/v1/{path}"]["post"]
    assert "`session_deleted`" in route["responses"]["409"]["description"]


async def test_a_documented_body_has_no_fields_of_the_path(http: aiohttp.ClientSession) -> None:
    """The session of a chat is in its path. The body of a cancel is optional."""
    document = await read(http, "/openapi.json")
    paths = document["paths"]
    chat, cancel = (paths[f"/api/v1/sessions/{{id}}/{name}"]["post"]["requestBody"] for name in ("chat", "cancel"))
    fields = document["components"]["schemas"]["ChatBody"]
    assert chat["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatBody"}
    assert "sessionId" not in fields["properties"] and fields["required"] == ["message"] and chat["required"]
    assert not cancel["required"]


@pytest.mark.parametrize("path, form", [("/v1/chat/completions", "message"), ("/api/v1/sessions/s1/chat", "code")])
async def test_the_error_for_a_body_that_is_too_large_has_the_form_of_its_route(
    http: aiohttp.ClientSession, path: str, form: str
) -> None:
    """OpenAI's clients get errors in OpenAI's form."""
    async with http.post(path, data=io.BytesIO(b"x" * (2**23 + 1))) as answer:
        error = await answer.json()
    assert answer.status == 413 and form in (error["error"] if form == "message" else error)


@needs_node
async def test_the_asyncapi_document_is_valid(http: aiohttp.ClientSession) -> None:
    """Valid by the official schema of AsyncAPI 3.0."""
    specs = await install_packages() / "node_modules" / "@asyncapi" / "specs" / "schemas"
    schema = json.loads((specs / "3.0.0-without-$id.json").read_text())
    jsonschema.Draft7Validator(schema).validate(await read(http, "/asyncapi.json"))


async def test_every_command_event_and_notice_is_in_the_asyncapi_document(http: aiohttp.ClientSession) -> None:
    """Each has its `type`, and belongs to an operation."""
    document = await read(http, "/asyncapi.json")
    messages = document["components"]["messages"]
    tables: dict[str, Mapping[str, object]] = {"command": COMMANDS, "event": BODIES, "notice": NOTICES}
    for prefix, table in tables.items():
        assert {name.partition(".")[2] for name in messages if name.startswith(prefix + ".")} == table.keys()
        for name in table:
            shape = messages[f"{prefix}.{name}"]["payload"]["$ref"].rpartition("/")[2]
            assert document["components"]["schemas"][shape]["properties"]["type"] == {"const": name}
    assert set(messages["envelope"]["payload"]["properties"]["type"]["enum"]) == {*ENVELOPE_TYPES.values(), "status"}
    refs = [one["$ref"] for operation in document["operations"].values() for one in operation["messages"]]
    assert {ref.rpartition("/")[2] for ref in refs} == messages.keys()
    assert [one["action"] for one in document["operations"].values()] == ["receive"] * 2 + ["send"] * 5


async def test_each_command_has_examples_that_match_its_schema(http: aiohttp.ClientSession) -> None:
    document = await read(http, "/asyncapi.json")
    for name in COMMANDS:
        message = document["components"]["messages"][f"command.{name}"]
        assert message["examples"]
        for example in message["examples"]:
            make_validator(document, message["payload"]).validate(example["payload"])


async def collect_frames(hub: Hub, path: str, *protocols: str) -> list[dict[str, Any]]:
    """Return all frames that a client receives for two runs and for commands that succeed or fail."""
    frames: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(hub.url) as http, http.ws_connect(path, protocols=protocols) as socket:
        for command in (
            {"type": "chat", "agentId": "everything", "message": "go", "clientMsgId": "k1"},
            {"type": "chat", "agentId": "everything", "message": "fail"},
            {"type": "subscribe", "sessionId": "s1", "history": 10, "afterSeq": 0},
            {"type": "subscribe", "agentId": "echo"},
            {"type": "unsubscribe", "agentId": "echo"},
            {"type": "cancel", "sessionId": "s1", "runId": "none"},
            {"type": "nonsense"},
            {"type": "ping", "ref": 1},
        ):
            await socket.send_json({"sessionId": "s1", **command})
        ends = 0
        async with asyncio.timeout(PATIENCE):
            while ends < 2:
                frame = await socket.receive_json()
                frames.append(frame)
                ends += frame["type"] in ("run_finished", "done") or frame.get("done") is True
            hub.node.drain()
            await socket.send_json({"type": "subscribe", "sessionId": "s1", "afterSeq": 10**6})
            await socket.send_json({"type": "chat", "message": "late"})
            while True:
                frames.append(await socket.receive_json())
                if "draining" in (frames[-1].get("code"), frames[-1].get("payload", {}).get("code")):
                    return frames


@pytest.mark.parametrize(
    "operation, path, protocols",
    [
        ("plain", "/api/v1/ws?sessionId=s1", ()),
        ("extended", "/api/v1/ws?sessionId=s1", ("hubbub.v1",)),
        ("extended", "/api/v1/ws?sessionId=s1&stream=false", ("hubbub.v1",)),
        ("plain", "/api/v1/ws?sessionId=s1&stream=false", ()),
        ("envelope", "/api/v1/ws?sessionId=s1", ("hubbub.events",)),
        ("agentEnvelope", "/api/v1/agents/everything/ws?sessionId=s1", ()),
        ("agentExtended", "/api/v1/agents/everything/ws?sessionId=s1", ("hubbub.v1",)),
    ],
)
async def test_the_frames_of_each_protocol_match_the_document(
    hub: Hub, http: aiohttp.ClientSession, operation: str, path: str, protocols: tuple[str, ...]
) -> None:
    """Each frame matches a message of its protocol, and has no undocumented field."""
    document = await read(http, "/asyncapi.json")
    names = [one["$ref"].rpartition("/")[2] for one in document["operations"][operation]["messages"]]
    shapes = [document["components"]["messages"][name]["payload"] for name in names]
    shapes = [document["components"]["schemas"][s["$ref"].rpartition("/")[2]] if "$ref" in s else s for s in shapes]
    validator = make_validator(document, {"anyOf": [{**shape, "additionalProperties": False} for shape in shapes]})
    frames = await collect_frames(hub, path, *protocols)
    for frame in frames:
        validator.validate(frame)
    assert len(frames) > 5


async def test_events_over_http_match_the_document(http: aiohttp.ClientSession) -> None:
    """The page of events has all types but a few. The messages match their schema without the optional fields."""
    for agent, message in (("everything", "go"), ("everything", "fail"), ("asking", "go")):
        chat, headers = {"agentId": agent, "message": message}, {"Accept": "text/event-stream"}
        async with http.post("/api/v1/sessions/s1/chat", json=chat, headers=headers) as answer:
            assert "run_finished" in await answer.text()
    document = await read(http, "/openapi.json")
    page = await read(http, "/api/v1/sessions/s1/events")
    make_validator(document, {"$ref": "#/components/schemas/EventPage"}).validate(page)
    messages = await read(http, "/api/v1/sessions/s1/messages")
    make_validator(document, {"$ref": "#/components/schemas/HistoryMessagePage"}).validate(messages)
    rare = {"message", "message_removed", "subagent_started", "subagent_finished", "subagent_error"}
    assert {event["type"] for event in page["data"]} == BODIES.keys() - rare


# --- the page ---------------------------------------------------------------------------------------------------------


@needs_browser
@needs_curl
@pytest.mark.parametrize("width", [390, 1200])
async def test_the_page_shows_every_route_and_loads_nothing_from_other_origins(
    hub: Hub, http: aiohttp.ClientSession, width: int
) -> None:
    """Without errors, and without a horizontal scrollbar. Its examples work."""
    errors: list[str] = []
    urls: set[str] = set()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: urls.add(request.url))
        await page.goto(hub.url + "/docs#shape-Chunk")
        await page.wait_for_selector("#state", state="detached")
        assert await page.locator("#shape-Chunk[open]").count() == 1, "a link to a closed section opens the section"
        summaries = [" ".join(text.split()) for text in await page.locator("summary").all_text_contents()]
        await page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        examples = await page.locator("pre").all_text_contents()
        await browser.close()
    for route in (route for route in ROUTES if route.tag != "Pages"):
        for base in route.prefixes:
            assert any(text.startswith(route.method + base + route.path) for text in summaries), route
    assert not errors and all(url.startswith((hub.url, "data:")) for url in urls)
    await run_examples(hub, [text for text in examples if text.startswith("curl ")])


async def run_examples(hub: Hub, examples: list[str]) -> None:
    """Run the curl commands of the page. None of them is refused as invalid."""
    hub.agent("main.py", "async def main(message: str):\n    yield message")
    await hub.node.agents.reload_changed_agents()
    assert len(examples) > 20
    for example in examples:
        await hub.node.log.sessions.make(Key("s1"))  # some examples delete it
        quiet = example.replace("curl ", "curl -s -o /dev/null -w '%{http_code}' ", 1)
        process = await asyncio.create_subprocess_shell(quiet, stdout=asyncio.subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        # No open question, no such message, file, member or link.
        paths = (
            "/resume",
            "/edit",
            "/regenerate",
            "/fork",
            "/files/s1",
            "/members",
            "/invites/",
            "/sign-in",
            "/quotas",
        )
        is_unknown = any(path in example for path in paths)
        unknown = {"404"} if is_unknown else {"401"} if "/echo" in example else set()  # no such token
        assert out.decode() in {"200", "201", "202", "204", "409"} | unknown, (example, out)


async def test_the_page_runs_no_script_but_its_own(http: aiohttp.ClientSession) -> None:
    """Its Content-Security-Policy allows no other origin, and the page has no inline scripts or styles."""
    async with http.get("/docs") as answer:
        policy, text = answer.headers["Content-Security-Policy"], await answer.text()
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert "style=" not in text and "onclick" not in text and "https://" not in text
    assert {path.name for path in REFERENCE_FOLDER.glob("*")} == {"index.html", "reference.js", "reference.css"}
