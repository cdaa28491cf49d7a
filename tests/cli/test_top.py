"""`hubbub top` with a real hub, at a real terminal and in a pipe."""

import asyncio
import io
import json
import re
import signal
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.process import HubProcess, run_hubbub
from support.terminal import CTRL_C, terminal
from support.waiting import PATIENCE, eventually

from hub.cli.scrape import Metrics
from hub.cli.top.drawing import draw_picture
from hub.cli.top.figures import Reading, estimate_quantile, make_picture
from hub.cli.top.units import format_bytes, format_duration, format_rate, format_span
from hub.observe.histogram import STEP_BOUNDS, Histogram

GATED = """
import asyncio, pathlib

async def gated(message: str):
    yield "waiting "
    while not pathlib.Path(message).exists():
        await asyncio.sleep(0.01)
    yield "done"
"""
BLOCKING = """
import pathlib, time

async def blocking(message: str):
    yield "blocking "
    while not pathlib.Path(message).exists():
        time.sleep(0.01)
"""
RESTORED = b"\x1b[?25h\x1b[?1049l"  # the cursor is visible, and the screen is the first one again


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub with agents that wait for a file. It is killed after the test."""
    running = HubProcess(tmp_path)
    running.agent("gated.py", GATED)
    running.agent("blocking.py", BLOCKING)
    await running.start()
    yield running
    await running.kill()


async def ask(
    http: aiohttp.ClientSession, process: HubProcess, agent: str, message: str, session: str = "s1"
) -> aiohttp.ClientWebSocketResponse:
    """Ask an agent, wait for the first text of its answer, and return the socket."""
    socket = await http.ws_connect(f"{process.url}/api/v1/ws?sessionId={session}")
    await socket.send_json({"type": "chat", "agentId": agent, "sessionId": session, "message": message})
    async with asyncio.timeout(PATIENCE):
        async for frame in socket:
            if json.loads(frame.data).get("type") == "stream":
                return socket
    raise AssertionError("the socket was closed")


async def read_json(folder: Path, *arguments: str) -> Any:
    output = await run_hubbub(folder, "top", "--json", *arguments)
    assert (output.code, output.err) == (0, ""), output
    return json.loads(output.out)


# --- the live view ----------------------------------------------------------------------------------------------------


async def test_the_view_follows_the_answers_of_the_hub(process: HubProcess, tmp_path: Path) -> None:
    """It has the whole hub at the top, and a row for each agent."""
    async with aiohttp.ClientSession() as http, terminal(tmp_path, "top", "--interval", "0.1") as screen:
        await screen.until("hubbub", "running            0", "gated")
        socket = await ask(http, process, "gated", str(tmp_path / "gate"))
        row = "gated            {running}        0       {ended}"
        await screen.until("running            1", "connections             1", row.format(running=1, ended=0))
        (tmp_path / "gate").touch()
        await screen.until("running            0", row.format(running=0, ended=1), "of the last", "refusals  none")
        await socket.close()


@pytest.mark.parametrize("key", ["q", CTRL_C, "\x04"])
async def test_a_key_ends_the_view_and_restores_the_terminal(process: HubProcess, tmp_path: Path, key: str) -> None:
    """The keys are shown again, and the screen is the one from before."""
    async with terminal(tmp_path, "top") as screen:
        attributes = termios.tcgetattr(screen.master)
        await screen.until("running")
        assert termios.tcgetattr(screen.master) != attributes
        screen.type("xy\x1b[A\x1a" + key)  # other keys, such as Ctrl-Z, do nothing
        assert await screen.wait_until_ended() == 0
        assert termios.tcgetattr(screen.master) == attributes and screen.raw.endswith(RESTORED)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
async def test_a_signal_restores_the_terminal(process: HubProcess, tmp_path: Path, number: int, code: int) -> None:
    async with terminal(tmp_path, "top") as screen:
        attributes = termios.tcgetattr(screen.master)
        await screen.until("running")
        screen.process.send_signal(number)
        assert await screen.wait_until_ended() == code
        assert termios.tcgetattr(screen.master) == attributes and RESTORED in screen.raw


async def test_a_closed_terminal_ends_the_view(process: HubProcess, tmp_path: Path) -> None:
    async with terminal(tmp_path, "top", "--interval", "0.1") as screen:
        await screen.until("running")
        screen.hang_up()
        assert await screen.wait_until_ended() == 129


async def test_the_view_says_that_the_hub_is_gone_and_comes_back(process: HubProcess, tmp_path: Path) -> None:
    """After the restart it begins anew."""
    async with terminal(tmp_path, "top", "--interval", "0.1") as screen:
        await screen.until("of the last")
        await process.kill()
        await screen.until("no hub runs on the data folder data")
        start = len(screen.raw)
        await process.start()
        # Among the bytes, because the next picture may come before the test looks at the screen.
        await eventually(lambda: b"since its start" in screen.raw[start:])
        text = await screen.until("of the last")
        assert "no hub runs" not in text


async def test_the_view_of_a_blocked_hub_says_so_and_ends_at_once(process: HubProcess, tmp_path: Path) -> None:
    """An agent blocks the event loop, so the hub cannot tell its metrics."""
    async with aiohttp.ClientSession() as http, terminal(tmp_path, "top", "--interval", "0.1") as screen:
        await screen.until("running")
        socket = await http.ws_connect(f"{process.url}/api/v1/ws?sessionId=s2")
        chat = {"type": "chat", "agentId": "blocking", "sessionId": "s2", "message": str(tmp_path / "gate")}
        await socket.send_json(chat)
        await screen.until("the hub has not answered for")
        screen.type("q")
        assert await screen.wait_until_ended() == 0
        async with terminal(tmp_path, "top") as late_screen:  # it waits for its first picture
            await late_screen.until("the hub does not answer yet: an agent may block its event loop; waiting")
            (tmp_path / "gate").touch()
            await late_screen.until("running")


# --- one picture ------------------------------------------------------------------------------------------------------


async def test_json_has_the_figures_of_the_hub(process: HubProcess, tmp_path: Path) -> None:
    """Since its start; of each agent too."""
    (tmp_path / "gate").touch()
    async with aiohttp.ClientSession() as http:
        sockets = [await ask(http, process, "gated", str(tmp_path / "gate"), session=f"s{n}") for n in range(2)]
        sockets.append(await ask(http, process, "gated", str(tmp_path / "none"), session="s0"))
        async with asyncio.timeout(PATIENCE):
            while (picture := await read_json(tmp_path))["answers"]["end_count"] < 2:
                pass
        assert len(sockets) == picture["clients"]["connections"] == 3
    assert picture["uptime_seconds"] == picture["span_seconds"] > 0
    assert picture["clients"]["sessions"] == 2
    gated = picture["agents"]["gated"]
    assert (gated["running"], gated["queued"], gated["end_count"]) == (1, 0, 2)
    assert gated["first_token"]["count"] == 3 and 0 < gated["first_token"]["p50"] <= gated["first_token"]["p95"]
    assert gated["tokens_per_second"] == pytest.approx(picture["answers"]["tokens_per_second"])
    assert picture["process"]["commit"]["count"] > 0 and picture["process"]["memory_bytes"] > 1_000_000
    assert picture["agents"]["blocking"]["first_token"] == {"count": 0, "p50": None, "p95": None}


async def test_a_pipe_gets_one_picture(process: HubProcess, tmp_path: Path) -> None:
    """Also with --once; and no key is needed on a hub with sign-in."""
    await process.kill()
    await process.start(sign_in="true")
    for arguments in ((), ("--once",)):
        output = await run_hubbub(tmp_path, "top", *arguments, COLUMNS=80)
        assert (output.code, output.err) == (0, "")
        assert "rates and times since its start" in output.out and "connections             0" in output.out
        assert "\x1b" not in output.out and max(map(len, output.out.splitlines())) <= 80


async def test_refusals_are_listed_by_their_reason(process: HubProcess, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http:
        socket = await http.ws_connect(f"{process.url}/api/v1/ws?sessionId=s1")
        for agent in ("nobody", "nobody", "not an id"):
            await socket.send_json({"type": "chat", "agentId": agent, "sessionId": "s1", "message": "hello"})
            await socket.receive(PATIENCE)
    output = await run_hubbub(tmp_path, "top", "--once")
    assert "refusals  unknown_agent 2, bad_id 1\n" in output.out.replace(" \n", "\n"), output.out


async def test_an_address_shows_the_same_figures(process: HubProcess, tmp_path: Path) -> None:
    """Also that of a hub on another machine, without its data folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    picture = await read_json(elsewhere, "--url", process.url)
    assert picture["version"] and {*picture["agents"]} == {"gated", "blocking"}


async def test_without_a_hub_there_is_one_line(tmp_path: Path) -> None:
    output = await run_hubbub(tmp_path, "top")
    assert (output.code, output.out) == (1, "")
    assert (
        output.err.startswith("hubbub: no hub runs on the data folder data: start one") and output.err.count("\n") == 1
    )
    output = await run_hubbub(tmp_path, "top", "--url", "http://127.0.0.1:9")
    assert output.code == 1 and "no hub answers at" in output.err and output.err.count("\n") == 1


@pytest.mark.parametrize("text", ["go_goroutines 7\n", "{hello", "<html>"])
async def test_metrics_of_another_server_are_refused(tmp_path: Path, text: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    output = await run_hubbub(tmp_path, "top", "--url", url)
    assert (output.code, output.err) == (1, f"hubbub: {url} is not a hub: give the hub's address with --url\n")
    await runner.cleanup()


# --- figures and their form -------------------------------------------------------------------------------------------


def make_metrics(names: list[str], **values: float) -> Metrics:
    """Return metrics of a hub with agents of these names, and with samples without labels."""
    metrics: Metrics = {name: [({}, value)] for name, value in values.items()}
    metrics["hubbub_runs_going"] = [({"agent": name}, 0) for name in names]
    return metrics


def test_the_figures_of_a_span_leave_out_what_was_before() -> None:
    """A counter that decreased, as after a restart, counts as 0."""
    before = Reading(10.0, make_metrics(["a"], hubbub_events_total=100, hubbub_written_bytes_total=500))
    now = Reading(14.0, make_metrics(["a"], hubbub_events_total=120, hubbub_written_bytes_total=50))
    clients = make_picture(now, before).clients
    assert (clients.events_per_second, clients.written_bytes_per_second) == (5.0, 0.0)


def test_figures_that_the_system_does_not_tell_are_none() -> None:
    """As on macOS: memory, processor and start. The picture has a dash for them."""
    picture = make_picture(Reading(1.0, make_metrics(["a"])))
    assert picture.uptime_seconds is picture.process.memory_bytes is picture.answers.tokens_per_second is None
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(draw_picture(picture, "data"))
    assert re.search(r"memory +-\n", console.export_text())


@given(st.lists(st.floats(0, 20), min_size=1), st.floats(0.01, 0.99))
def test_an_estimated_quantile_is_in_the_bucket_of_the_true_one(durations: list[float], share: float) -> None:
    """Or it is the last bound."""
    histogram = Histogram(STEP_BOUNDS)
    for duration in durations:
        histogram.add(duration)
    buckets = [(float(bound), count) for bound, count in histogram.list_buckets()]
    estimate = estimate_quantile(buckets, share)
    true_quantile = next(value for number, value in enumerate(sorted(durations), 1) if number >= share * len(durations))
    lower = max((bound for bound in STEP_BOUNDS if bound < true_quantile), default=0.0)
    upper = min((bound for bound in STEP_BOUNDS if bound >= true_quantile), default=STEP_BOUNDS[-1])
    assert estimate is not None and lower <= estimate <= upper


def test_a_quantile_needs_a_duration() -> None:
    assert estimate_quantile([], 0.5) is estimate_quantile([(1.0, 0.0), (float("inf"), 0.0)], 0.5) is None


@pytest.mark.parametrize("height", [10, 24, 30, 200])
def test_agents_that_do_not_fit_on_the_screen_are_counted(height: int) -> None:
    """The picture is not higher than the screen, except on one that is too small for the rest."""
    picture = make_picture(Reading(1.0, make_metrics([f"agent{number}" for number in range(100)])))
    console = Console(width=80, height=height, record=True, file=io.StringIO())
    console.print(draw_picture(picture, "data", height=height))
    lines = console.export_text().splitlines()
    rows = [line for line in lines if line.startswith("agent") and line[5].isdecimal()]
    rest = f"and {100 - len(rows)} more" if len(rows) < 100 else ""
    assert rest in lines[-1] and len(lines) <= max(height, 22)


def test_numbers_are_short() -> None:
    spans = [format_span(seconds) for seconds in (59, 61, 3 * 3600 + 65, 90_000)]
    assert spans == ["59 s", "1 min 1 s", "3 h 1 min", "1 d 1 h"]
    durations = [format_duration(seconds) for seconds in (None, 0.0004, 0.25, 1.5, 125)]
    assert durations == ["-", "0.4 ms", "250 ms", "1.5 s", "2 min 5 s"]
    assert [format_bytes(size) for size in (None, 12, 2048, 3 << 20, 5 << 30)] == [
        "-",
        "12 B",
        "2.0 KiB",
        "3.0 MiB",
        "5.0 GiB",
    ]
    assert [format_rate(rate) for rate in (None, 0.25, 12345.6)] == ["-", "0.2", "12,346"]
