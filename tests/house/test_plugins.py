"""Installed packages add adapters, protocols and log drivers by entry points."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs
from support.packages import add_package
from support.process import HubProcess
from support.waiting import PATIENCE

from hub.limits import Limits
from hub.protocols import PROTOCOLS, open_protocol, protocol_names
from hub.seams import Seams
from hub.storage.log import LogUnusable
from hub.storage.open_log import open_log
from hub.storage.sqlite.log import SqliteLog

GREETER = """
    from contextlib import asynccontextmanager
    import attrs

    @attrs.frozen
    class Options:
        greeting: str = "Hello"

    @asynccontextmanager
    async def open(options, place):
        async def answer(run):
            yield f"{options.greeting}, {run.message}!"

        yield answer
    """

# Sends only the text of chunks, in capitals.
SHOUT = """
    from hub.messages import Chat, Chunk, RunFinished
    from hub.protocols import WireProtocol, text_frame

    class Shout(WireProtocol):
        name = "acme.shout"

        def command(self, data, limits):
            return Chat(message=data.decode())

        def event(self, event):
            return text_frame(event.body.content.upper().encode()) if isinstance(event.body, Chunk) else b""

        def whole(self, event, message_id, content):
            return text_frame(content.upper().encode())

        def answer(self, notice):
            return b""

        def notice(self, notice):
            return b""

    class Unnamed(Shout):
        name = "acme.other"

    class Half(WireProtocol):
        name = "acme.half"
    """

# The hub's SQLite log under another scheme, in a file with another name.
LOG = """
    from hub.storage.sqlite.log import SqliteLog

    class AcmeLog(SqliteLog):
        def __init__(self, url, limits, seams):
            super().__init__(url.replace("acme:", "sqlite:") + ".acme", limits, seams)
    """


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    return folder


@pytest.fixture
async def served(tmp_path: Path, packages: Path) -> AsyncIterator[HubProcess]:
    """Return a hub with *packages* on its path and the agent `echo`; it is not started yet."""
    running = HubProcess(tmp_path / "hub", packages)
    running.folder.mkdir()
    running.agent("echo.py", "async def echo(message):\n    yield message")
    yield running
    await running.kill()


async def first_frame(hub: HubProcess, query: str, protocol: str = "") -> str:
    """Send one text and return the first frame of the answer."""
    async with aiohttp.ClientSession() as http:
        offer = [protocol] if protocol else []
        async with http.ws_connect(f"{hub.url}/api/v1/ws?{query}", protocols=offer) as ws:
            assert (ws.protocol or "") == protocol
            await ws.send_str("hello" if protocol else '{"type": "chat", "message": "hello"}')
            frame = await ws.receive(PATIENCE)
            assert frame.type is aiohttp.WSMsgType.TEXT, frame
            return str(frame.data)


async def test_an_agent_can_use_the_adapter_of_a_package(served: HubProcess, packages: Path) -> None:
    """If the package cannot be imported, the agent is listed as broken, and a log line names the package."""
    add_package(packages, "acme-greeter", "[hubbub.adapters]\ngreeter = acme_greeter", {"acme_greeter": GREETER})
    add_package(packages, "acme-half", "[hubbub.adapters]\nhalf = acme_half", {"acme_half": "import nothing_there"})
    served.agent("a.toml", 'adapter = "greeter"\ngreeting = "Good morning"')
    served.agent("b.toml", 'adapter = "half"')
    await served.start()
    assert "Good morning, hello!" in await first_frame(served, "agentId=a")
    assert "b.toml: entry point 'half' of package acme-half 1.0" in served.log
    async with aiohttp.ClientSession() as http, http.get(f"{served.url}/api/v1/agents") as response:
        listing = {agent["agentId"]: agent for agent in (await response.json())["data"]}
    assert listing["a"]["status"] == "ok" and listing["b"]["status"] == "broken"
    assert listing["b"]["error"] == "b.toml: the adapter 'half' cannot be used; `hubbub agents` shows the reason"


async def test_a_client_speaks_the_protocol_of_a_package(served: HubProcess, packages: Path) -> None:
    """A protocol that cannot be used is not offered; a line at the start of the hub names it."""
    points = """
        [hubbub.protocols]
        acme.shout = acme_shout:Shout
        acme.gone = acme_shout:Gone
        """
    add_package(packages, "acme-shout", points, {"acme_shout": SHOUT})
    await served.start()
    assert "acme.gone" in served.log and "acme.shout" not in served.log
    assert await first_frame(served, "agentId=echo", "acme.shout") == "HELLO"
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{served.url}/api/v1/ws", protocols=["acme.gone"]) as ws:
            assert ws.protocol is None


def test_an_unusable_protocol_is_left_out(packages: Path, monkeypatch: pytest.MonkeyPatch, fresh_plugins: None) -> None:
    """Each has one warning with the reason: it is not a protocol, has another name, or lacks a method."""
    points = """
        [hubbub.protocols]
        acme.shout = acme_shout:Shout
        acme.unnamed = acme_shout:Unnamed
        acme.half = acme_shout:Half
        acme.function = acme_shout:text_frame
        plain = acme_shout:Shout
        """
    add_package(packages, "acme-shout", points, {"acme_shout": SHOUT})
    monkeypatch.syspath_prepend(str(packages))
    with capture_logs() as logs:
        assert protocol_names() == [*PROTOCOLS, "acme.shout"] == protocol_names()
    assert open_protocol("acme.shout") is open_protocol("acme.shout")
    assert open_protocol("plain").name == "plain"
    reserved, *reasons = [line.get("plugin") or line["reason"] for line in logs]
    package = "of package acme-shout 1.0 (hubbub.protocols)"
    assert reserved == f"entry point 'plain' {package}"
    assert reasons == [
        f"entry point 'acme.unnamed' {package} has another name than its class: set `name = 'acme.unnamed'` in it",
        f"entry point 'acme.half' {package} lacks answer, command, event, notice, whole, which WireProtocol requires",
        f"entry point 'acme.function' {package} is not a subclass of hub.protocols.WireProtocol",
    ]


async def test_a_hub_uses_the_log_driver_of_a_package(served: HubProcess, packages: Path) -> None:
    """The scheme of the log's URL is the name of the entry point."""
    add_package(packages, "acme-log", "[hubbub.logs]\nacme = acme_log:AcmeLog", {"acme_log": LOG})
    await served.start(log="acme:///kept")
    assert "hello" in await first_frame(served, "agentId=echo")
    assert (served.folder / "kept.acme").stat().st_size > 0


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("acme_log:Nothing", "cannot be imported: AttributeError"),
        ("acme_two", "cannot be imported: RuntimeError: two lines; upgrade or remove the package$"),
        ("acme_log:SqliteLog.start", "is not a subclass of hub.storage.log.Log"),
        ("hub.storage.log:Log", "lacks close, commit_totals, identify, probe, start,"),
    ],
)
def test_an_unusable_log_driver_is_refused(
    packages: Path, monkeypatch: pytest.MonkeyPatch, fresh_plugins: None, value: str, problem: str
) -> None:
    """The error names the package and the problem, in one line."""
    two = "raise RuntimeError('two\\nlines')"
    add_package(packages, "acme-log", f"[hubbub.logs]\nacme = {value}", {"acme_log": LOG, "acme_two": two})
    monkeypatch.syspath_prepend(str(packages))
    with pytest.raises(LogUnusable, match=r"^entry point 'acme' of package acme-log 1.0 \(hubbub.logs\) " + problem):
        open_log("acme:///kept", Limits(), Seams())
    with pytest.raises(LogUnusable, match="^no driver opens the log 'papyrus:///x': use one of sqlite://, acme://$"):
        open_log("papyrus:///x", Limits(), Seams())


def test_a_built_in_log_driver_overrides_a_package(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_plugins: None
) -> None:
    """One warning line names the package."""
    add_package(packages, "acme-log", "[hubbub.logs]\nsqlite = acme_log:AcmeLog", {"acme_log": LOG})
    monkeypatch.syspath_prepend(str(packages))
    with capture_logs() as logs:
        assert type(open_log(f"sqlite:///{tmp_path}/hub.db", Limits(), Seams())) is SqliteLog
    assert [line["plugin"] for line in logs] == ["entry point 'sqlite' of package acme-log 1.0 (hubbub.logs)"]
