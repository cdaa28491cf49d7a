"""The metrics for Prometheus are correct, documented, and contain no session or user."""

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.documents import DOCS, rows
from support.faults import faulty
from support.hub import Client, Hub
from support.waiting import PATIENCE, eventually

from hub.access.principal import OPERATOR
from hub.commands import table
from hub.protocols import close_frame


async def scrape(hub: Hub, base: str = "") -> dict[tuple[str, ...], float]:
    """Return each value by the name of its metric and the values of its labels."""
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{hub.url}{base}/metrics") as response:
            assert response.status == 200 and response.content_type == "text/plain"
            text = await response.text()
    families = text_string_to_metric_families(text)
    return {(sample.name, *sample.labels.values()): sample.value for one in families for sample in one.samples}


async def until(hub: Hub, condition: Callable[[dict[tuple[str, ...], float]], bool]) -> dict[tuple[str, ...], float]:
    async with asyncio.timeout(PATIENCE):
        while not condition(metrics := await scrape(hub)):
            await asyncio.sleep(0.01)
    return metrics


async def chat(client: Client, agent: str, message: str) -> dict[str, Any]:
    await client.send(type="chat", agentId=agent, sessionId="s1", message=message)
    return await client.until_done()


@pytest.mark.parametrize("base", ["", "/api/v1"])
async def test_connections_chats_runs_and_commits_are_counted(hub: Hub, base: str) -> None:
    """The metrics are at the root and under the base path."""
    await hub.start()
    extended, plain = await hub.connect("?sessionId=s1", extended=True), await hub.connect("?sessionId=s1")
    await chat(extended, "echo", "hello there")
    await plain.until_done()
    metrics = await scrape(hub, base)
    assert metrics["hubbub_connections",] == 2 and metrics["hubbub_sessions",] == 1
    assert metrics["hubbub_subscriptions", "plain"] == metrics["hubbub_subscriptions", "hubbub.v1"] == 1
    assert metrics["hubbub_chats_total",] == metrics["hubbub_runs_started_total", "echo"] == 1
    assert metrics["hubbub_runs_ended_total", "echo", "end_turn"] == 1
    assert metrics["hubbub_runs_going", "echo"] == metrics["hubbub_runs_waiting", "echo"] == 0
    assert metrics["hubbub_events_total",] == extended.frames[-1]["seq"]
    assert metrics["hubbub_log_commit_seconds_count",] == hub.node.log.commit_totals.commits > 1
    assert metrics["hubbub_log_commit_seconds_sum",] > 0
    assert metrics["hubbub_loop_lag_worst_seconds",] >= 0


async def test_running_and_queued_runs_are_counted(hub: Hub, tmp_path: Path) -> None:
    """By agent. And cancelled runs, after their end."""
    await hub.start()
    client = await hub.connect(extended=True)
    for _ in range(3):
        await client.send(type="chat", agentId="gated", sessionId="s1", message=str(tmp_path / "never"))
    metrics = await until(hub, lambda metrics: metrics["hubbub_runs_waiting", "gated"] == 2)
    assert metrics["hubbub_runs_going", "echo"] == metrics["hubbub_runs_waiting", "echo"] == 0
    assert metrics["hubbub_runs_going", "gated"] == 1 and metrics["hubbub_runs_started_total", "gated"] == 1
    await client.send(type="cancel", sessionId="s1")
    await until(hub, lambda metrics: metrics.get(("hubbub_runs_ended_total", "gated", "cancelled")) == 3)
    await until(
        hub, lambda metrics: metrics["hubbub_runs_going", "gated"] == metrics["hubbub_runs_waiting", "gated"] == 0
    )


async def test_the_counters_include_closed_connections(hub: Hub) -> None:
    """A counter never decreases."""
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await chat(client, "echo", "hello there")
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    await late.until_done()
    before = await scrape(hub)
    assert before["hubbub_written_bytes_total",] > 400 and before["hubbub_catch_ups_total",] == 1
    await client.close()
    await late.close()
    after = await until(hub, lambda metrics: metrics["hubbub_connections",] == 0)
    close_frames = 2 * len(close_frame(1000, ""))
    assert after["hubbub_written_bytes_total",] == before["hubbub_written_bytes_total",] + close_frames
    assert after["hubbub_catch_ups_total",] == before["hubbub_catch_ups_total",]


async def test_a_stuck_client_is_counted_once(hub: Hub) -> None:
    await hub.start(stuck_seconds=0.2)
    client = await hub.connect("?sessionId=s1")
    (connection,) = hub.node.registry.connections
    with faulty(connection.transport, get_write_buffer_size=lambda: 2**30):  # as if the socket accepted no bytes
        assert await client.wait_closed() == 1006
    metrics = await until(hub, lambda metrics: metrics["hubbub_connections",] == 0)
    assert metrics["hubbub_aborted_clients_total",] == 1


async def test_the_worst_lag_of_the_event_loop_is_shown(hub: Hub) -> None:
    """It does not decrease. All measurements are in a histogram."""
    await hub.start()
    hub.node.registry.counters.worst_loop_lag = 7.0
    await until(hub, lambda metrics: metrics["hubbub_loop_lag_seconds_count",] > 1)
    assert (await scrape(hub))["hubbub_loop_lag_worst_seconds",] == 7.0


async def test_the_metrics_contain_no_session_and_no_user(hub: Hub) -> None:
    """The labels are agents, protocols and stop reasons: few values, none of them private."""
    await hub.start()
    client = await hub.connect("?sessionId=secret-session")
    await client.send(type="chat", agentId="echo", sessionId="secret-session", message="secret")
    await client.until_done()
    assert "secret" not in str(await scrape(hub)) and "local" not in str(await scrape(hub))


async def test_the_operations_page_has_exactly_these_metrics(hub: Hub) -> None:
    """With their types and labels, and those of the process that it names."""
    await hub.start()
    await hub.connect("?sessionId=s1")
    client = await hub.connect("?sessionId=s1")
    await chat(client, "echo", "hello")
    await client.send(type="rubbish")
    await client.close()
    await eventually(lambda: hub.door.counters.door.socket_closes)
    hub.door.counters.door.sign_ins["link"] += 1
    documented = {row[0]: row[1] for row in rows(DOCS["operations"]) if row[0].startswith("`hubbub_")}
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{hub.url}/metrics") as response:
            families = list(text_string_to_metric_families(await response.text()))
    names, process_names = {}, set()
    for one in families:
        name = f"`{one.name}{'_total' if one.type == 'counter' else ''}`"
        if one.name.startswith("process_"):
            process_names.add(name)
        else:
            labels = sorted({name for sample in one.samples for name in sample.labels if name != "le"})
            names[name] = (one.type, labels)
    assert names == {
        name: (kind.split()[0], sorted(kind.replace("`", "").replace(",", "").split()[2:]))
        for name, kind in documented.items()
    }
    mentions = set(re.findall("`process_[a-z_]+`", DOCS["operations"].read_text()))
    assert mentions and (mentions <= process_names or sys.platform != "linux")


async def test_a_regenerated_answer_counts_as_a_run_but_not_as_a_chat(hub: Hub) -> None:
    await hub.start()
    client = await hub.connect("?sessionId=s1", extended=True)
    end = await chat(client, "echo", "hello")
    await client.send(type="regenerate", sessionId="s1", messageId=end["messageId"])
    await client.until_done()
    metrics = await scrape(hub)
    assert (metrics["hubbub_chats_total",], metrics["hubbub_runs_started_total", "echo"]) == (1, 2)


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_the_times_of_an_answer_are_histograms_by_agent(hub: Hub, tmp_path: Path) -> None:
    """An answer counts once in each. A run that was cancelled in the queue was not called, and counts in none."""
    await hub.start()
    client = await hub.connect("?sessionId=s1", extended=True)
    for _ in range(2):
        await client.send(type="chat", agentId="gated", sessionId="s1", message=str(tmp_path / "gate"))
    metrics = await until(hub, lambda metrics: metrics.get(("hubbub_first_token_seconds_count", "gated")) == 1)
    assert ("hubbub_run_seconds_count", "gated") not in metrics  # it runs
    await client.send(type="cancel", sessionId="s1", queued=True)
    metrics = await until(hub, lambda metrics: metrics.get(("hubbub_runs_ended_total", "gated", "cancelled")) == 2)
    for name in ("hubbub_run_wait_seconds", "hubbub_first_token_seconds", "hubbub_run_seconds"):
        assert metrics[f"{name}_count", "gated"] == metrics[f"{name}_bucket", "gated", "+Inf"] == 1, name
        assert metrics[f"{name}_sum", "gated"] > 0


async def test_the_wait_in_the_queue_is_measured(hub: Hub, tmp_path: Path) -> None:
    """From the message to the call of the agent."""
    await hub.start()
    client = await hub.connect("?sessionId=s1", extended=True)
    start = asyncio.get_running_loop().time()
    for _ in range(2):
        await client.send(type="chat", agentId="gated", sessionId="s1", message=str(tmp_path / "gate"))
    await until(hub, lambda metrics: metrics["hubbub_runs_waiting", "gated"] == 1)
    (tmp_path / "gate").touch()
    for _ in range(2):
        await client.until_done()
    metrics, seconds = await scrape(hub), asyncio.get_running_loop().time() - start
    assert metrics["hubbub_run_seconds_count", "gated"] == metrics["hubbub_run_wait_seconds_count", "gated"] == 2
    assert 0 < metrics["hubbub_run_wait_seconds_sum", "gated"] < seconds * 2
    first_run = hub.door.counters.answers.durations["gated"].seconds
    assert metrics["hubbub_run_wait_seconds_sum", "gated"] > first_run / 4  # the second run waited for the first one


async def test_tokens_are_counted_by_agent_and_kind(hub: Hub) -> None:
    """Also without sign-in. Those that the agent did not report are an estimate; a called agent has its own."""
    hub.agent(
        "reports.py",
        """
        from hub import Finish, Usage, Run

        async def reports(run: Run):
            yield await run.call("echo", "12345678")
            yield Finish(usage=Usage(inputTokens=100, outputTokens=20))
        """,
    )
    await hub.start()
    client = await hub.connect("?sessionId=s1", extended=True)
    await chat(client, "reports", "hello")
    metrics = await scrape(hub)
    assert metrics["hubbub_tokens_total", "reports", "input"] == 100
    assert metrics["hubbub_tokens_total", "reports", "output"] == 20
    assert metrics["hubbub_estimated_tokens_total", "reports"] == 0
    assert metrics["hubbub_tokens_total", "echo", "input"] == 2
    assert metrics["hubbub_tokens_total", "echo", "output"] == 3  # "12345678 "
    assert metrics["hubbub_estimated_tokens_total", "echo"] == 5


async def test_tokens_of_an_answer_without_a_session_are_counted(hub: Hub) -> None:
    await hub.start()
    body = {"model": "echo", "messages": [{"role": "user", "content": "12345678"}]}
    async with aiohttp.ClientSession() as http, http.post(f"{hub.url}/v1/chat/completions", json=body) as response:
        assert response.status == 200
    assert (await scrape(hub))["hubbub_tokens_total", "echo", "input"] == 2


async def test_the_age_of_tokens_is_measured_at_delivery(hub: Hub) -> None:
    """Once for each chunk in the log, however many clients get it."""
    await hub.start()
    clients = [await hub.connect("?sessionId=s1", extended=True) for _ in range(3)]
    await hub.wait_until_live("s1", 3)
    await chat(clients[0], "echo", "hello there")
    chunks = [frame for frame in clients[0].frames if frame["type"] == "stream"]
    metrics = await scrape(hub)
    assert metrics["hubbub_token_age_seconds_count",] == len(chunks) > 0
    assert metrics["hubbub_token_age_seconds_sum",] > 0


async def test_lagging_subscriptions_are_counted(hub: Hub) -> None:
    await hub.start()
    await hub.connect("?sessionId=s1")
    await hub.wait_until_live("s1", 1)
    (connection,) = hub.node.registry.connections
    (sub,) = connection.subscriptions.values()
    connection.catchup.lagging_subscriptions[sub] = None
    assert (await scrape(hub))["hubbub_lagging_subscriptions",] == 1
    connection.catchup.remove(sub)
    assert (await scrape(hub))["hubbub_lagging_subscriptions",] == 0


# --- the door ---------------------------------------------------------------------------------------------------------


async def test_responses_are_counted_by_method_and_status(hub: Hub) -> None:
    """A WebSocket counts when it opens. A method that nobody knows has the label `other`."""
    await hub.start()
    await hub.connect()
    async with aiohttp.ClientSession() as http:
        for method, path in (("GET", "/health"), ("POST", "/nowhere"), ("TRACE", "/health"), ("PROPFIND", "/health")):
            async with http.request(method, hub.url + path):
                pass
    metrics = await scrape(hub)
    assert metrics["hubbub_http_responses_total", "GET", "101"] == metrics["hubbub_websockets_opened_total",] == 1
    assert metrics["hubbub_http_responses_total", "GET", "200"] == 1
    assert metrics["hubbub_http_responses_total", "POST", "404"] == 1
    assert metrics["hubbub_http_responses_total", "other", "405"] == 2


async def closes(hub: Hub) -> dict[tuple[str, ...], float]:
    """Wait until no client is connected, and return the number of ended sockets by close code."""
    metrics = await until(hub, lambda metrics: metrics["hubbub_connections",] == 0)
    metrics = await until(
        hub,
        lambda metrics: sum(count for name, count in metrics.items() if name[0] == "hubbub_websockets_closed_total")
        == metrics["hubbub_websockets_opened_total",],
    )
    return {name[1:]: count for name, count in metrics.items() if name[0] == "hubbub_websockets_closed_total"}


@pytest.mark.parametrize(("code", "label"), [(1000, "1000"), (1001, "1001"), (4999, "other"), (3000, "other")])
async def test_a_close_of_the_client_is_counted_by_its_code(hub: Hub, code: int, label: str) -> None:
    """A client may send any code, so those that are not in the table of codes have the label `other`."""
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await client.ws.close(code=code)
    assert await closes(hub) == {(label,): 1}


async def test_a_lost_connection_is_counted_as_1006(hub: Hub) -> None:
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    client.ws._response.connection.transport.abort()  # type: ignore[union-attr]
    assert await closes(hub) == {("1006",): 1}


async def test_a_close_of_the_hub_is_counted_by_its_code(hub: Hub) -> None:
    """Too many bad frames are 4501, a frame that is too large 1009."""
    await hub.start(bad_frames_per_minute=1, frame_bytes=1000)
    bad, large = await hub.connect("?sessionId=s1"), await hub.connect("?sessionId=s1")
    for _ in range(2):
        await bad.ws.send_str("{")
    assert await bad.wait_closed() == 4501
    await large.ws.send_str("x" * 2000)
    assert await large.wait_closed() == 1009
    assert await closes(hub) == {("4501",): 1, ("1009",): 1}
    assert (await scrape(hub))["hubbub_refusals_total", "bad_frame"] == 2


async def test_a_revoked_key_is_counted(hub: Hub) -> None:
    """As the close of a socket with 4503, and as a refusal."""
    hub.options["sign_in"] = True
    await hub.start()
    key = await hub.key("ci")
    client = await hub.connect()
    await client.send(type="auth", token=key)
    await client.until_type("ok")
    await table.revoke_credential(hub.door, OPERATOR, key.split("_")[1])
    assert await client.wait_closed() == 4503
    door = hub.door.counters.door
    await eventually(lambda: door.socket_closes)
    assert (door.socket_closes, door.sign_ins) == ({"4503": 1}, {"socket": 1})
    assert door.refusals == {"unauthenticated": 1}


async def test_sign_ins_of_browsers_are_counted(hub: Hub) -> None:
    """A link of a person, and the guests of a session."""
    hub.options["sign_in"] = True
    await hub.start()
    link = await table.invite_person(hub.door, OPERATOR, "ann", role="member")
    async with aiohttp.ClientSession() as http:
        for status in (200, 404):
            body = {"token": link.partition("#")[2]}
            async with http.post(f"{hub.url}/api/v1/sign-in", json=body) as response:
                assert response.status == status
    assert hub.door.counters.door.sign_ins == {"link": 1}
    assert hub.door.counters.door.refusals == {"bad_link": 1}


async def test_refusals_are_counted_by_error_code(hub: Hub) -> None:
    """Over WebSockets, over HTTP, and in OpenAI's form. Each is counted once."""
    await hub.start()
    client = await hub.connect()
    await client.send(type="chat", agentId="nobody", message="hello")
    await client.until_type("error")
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{hub.url}/api/v1/agents/nobody") as response:
            assert response.status == 404
        async with http.get(f"{hub.url}/health", headers={"Host": "evil.example"}) as response:
            assert response.status == 403
        body = {"model": "nobody", "messages": [{"role": "user", "content": "hello"}]}
        async with http.post(f"{hub.url}/v1/chat/completions", json=body) as response:
            assert response.status == 404
    assert hub.door.counters.door.refusals == {"unknown_agent": 3, "refused": 1}
