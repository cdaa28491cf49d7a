"""The metrics for Prometheus are correct, documented, and contain no session or user."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.documents import DOCS, rows
from support.faults import faulty
from support.hub import Client, Hub
from support.waiting import PATIENCE


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
    assert metrics["hubbub_runs_going",] == metrics["hubbub_runs_waiting",] == 0
    assert metrics["hubbub_events_total",] == extended.frames[-1]["seq"]
    assert metrics["hubbub_log_commit_seconds_count",] == hub.node.log.commit_totals.commits > 1
    assert metrics["hubbub_log_commit_seconds_sum",] > 0
    assert metrics["hubbub_loop_lag_worst_seconds",] >= metrics["hubbub_loop_lag_seconds",] >= 0


async def test_running_and_queued_runs_are_counted(hub: Hub, tmp_path: Path) -> None:
    """And cancelled runs, after their end."""
    await hub.start()
    client = await hub.connect(extended=True)
    for _ in range(3):
        await client.send(type="chat", agentId="gated", sessionId="s1", message=str(tmp_path / "never"))
    metrics = await until(hub, lambda metrics: metrics["hubbub_runs_waiting",] == 2)
    assert metrics["hubbub_runs_going",] == 1 and metrics["hubbub_runs_started_total", "gated"] == 1
    await client.send(type="cancel", sessionId="s1")
    metrics = await until(hub, lambda metrics: metrics.get(("hubbub_runs_ended_total", "gated", "cancelled")) == 3)
    assert metrics["hubbub_runs_going",] == metrics["hubbub_runs_waiting",] == 0


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
    for name in ("hubbub_written_bytes_total", "hubbub_catch_ups_total"):
        assert after[name,] == before[name,]


async def test_a_stuck_client_is_counted_once(hub: Hub) -> None:
    await hub.start(stuck_seconds=0.2)
    client = await hub.connect("?sessionId=s1")
    (connection,) = hub.node.registry.connections
    with faulty(connection.transport, get_write_buffer_size=lambda: 2**30):  # as if the socket accepted no bytes
        assert await client.wait_closed() == 1006
    metrics = await until(hub, lambda metrics: metrics["hubbub_connections",] == 0)
    assert metrics["hubbub_aborted_clients_total",] == 1


async def test_the_worst_lag_of_the_event_loop_is_shown(hub: Hub) -> None:
    """It does not decrease."""
    await hub.start()
    hub.node.registry.counters.worst_loop_lag = 7.0
    await until(hub, lambda metrics: metrics["hubbub_loop_lag_seconds",] > 0)
    assert (await scrape(hub))["hubbub_loop_lag_worst_seconds",] == 7.0


async def test_the_metrics_contain_no_session_and_no_user(hub: Hub) -> None:
    """The labels are agents, protocols and stop reasons: few values, none of them private."""
    await hub.start()
    client = await hub.connect("?sessionId=secret-session")
    await client.send(type="chat", agentId="echo", sessionId="secret-session", message="secret")
    await client.until_done()
    assert "secret" not in str(await scrape(hub)) and "local" not in str(await scrape(hub))


async def test_the_operations_page_has_exactly_these_metrics(hub: Hub) -> None:
    """With their types and labels."""
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await chat(client, "echo", "hello")
    table = {row[0]: row[1] for row in rows(DOCS["operations"]) if row[0].startswith("`hubbub_")}
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{hub.url}/metrics") as response:
            families = list(text_string_to_metric_families(await response.text()))
    names = {}
    for one in families:
        labels = sorted({name for sample in one.samples for name in sample.labels})
        names[f"`{one.name}{'_total' if one.type == 'counter' else ''}`"] = (one.type, labels)
    assert names == {
        name: (kind.split()[0], sorted(kind.replace("`", "").replace(",", "").split()[2:]))
        for name, kind in table.items()
    }


async def test_a_regenerated_answer_counts_as_a_run_but_not_as_a_chat(hub: Hub) -> None:
    await hub.start()
    client = await hub.connect("?sessionId=s1", extended=True)
    end = await chat(client, "echo", "hello")
    await client.send(type="regenerate", sessionId="s1", messageId=end["messageId"])
    await client.until_done()
    metrics = await scrape(hub)
    assert (metrics["hubbub_chats_total",], metrics["hubbub_runs_started_total", "echo"]) == (1, 2)
