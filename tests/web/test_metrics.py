"""What Prometheus reads: true, named on the page, and of no session or user."""

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
    """Return each value by its name and its labels' values."""
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{hub.url}{base}/metrics") as response:
            assert response.status == 200 and response.content_type == "text/plain"
            text = await response.text()
    families = text_string_to_metric_families(text)
    return {(sample.name, *sample.labels.values()): sample.value for one in families for sample in one.samples}


async def until(hub: Hub, true: Callable[[dict[tuple[str, ...], float]], bool]) -> dict[tuple[str, ...], float]:
    async with asyncio.timeout(PATIENCE):
        while not true(found := await scrape(hub)):
            await asyncio.sleep(0.01)
    return found


async def chat(client: Client, agent: str, message: str) -> dict[str, Any]:
    await client.send(type="chat", agentId=agent, sessionId="s1", message=message)
    return await client.until_done()


@pytest.mark.parametrize("base", ["", "/api/v1"])
async def test_what_happened_is_counted(hub: Hub, base: str) -> None:
    """At the root and under the base."""
    await hub.start()
    extended, plain = await hub.connect("?sessionId=s1", extended=True), await hub.connect("?sessionId=s1")
    await chat(extended, "echo", "hello there")
    await plain.until_done()
    found = await scrape(hub, base)
    assert found["hubbub_connections",] == 2 and found["hubbub_sessions",] == 1
    assert found["hubbub_subscriptions", "plain"] == found["hubbub_subscriptions", "hubbub.v1"] == 1
    assert found["hubbub_chats_total",] == found["hubbub_runs_started_total", "echo"] == 1
    assert found["hubbub_runs_ended_total", "echo", "end_turn"] == 1
    assert found["hubbub_runs_going",] == found["hubbub_runs_waiting",] == 0
    assert found["hubbub_events_total",] == extended.frames[-1]["seq"]
    assert found["hubbub_log_commit_seconds_count",] == hub.node.log.commit_totals.commits > 1
    assert found["hubbub_log_commit_seconds_sum",] > 0
    assert found["hubbub_loop_lag_worst_seconds",] >= found["hubbub_loop_lag_seconds",] >= 0


async def test_what_goes_on_and_waits_is_shown(hub: Hub, tmp_path: Path) -> None:
    """And how it ended."""
    await hub.start()
    client = await hub.connect(extended=True)
    for _ in range(3):
        await client.send(type="chat", agentId="gated", sessionId="s1", message=str(tmp_path / "never"))
    found = await until(hub, lambda found: found["hubbub_runs_waiting",] == 2)
    assert found["hubbub_runs_going",] == 1 and found["hubbub_runs_started_total", "gated"] == 1
    await client.send(type="cancel", sessionId="s1")
    found = await until(hub, lambda found: found.get(("hubbub_runs_ended_total", "gated", "cancelled")) == 3)
    assert found["hubbub_runs_going",] == found["hubbub_runs_waiting",] == 0


async def test_what_was_written_to_those_who_left_still_counts(hub: Hub) -> None:
    """A counter never falls."""
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await chat(client, "echo", "hello there")
    late = await hub.connect("?sessionId=s1&afterSeq=0")
    await late.until_done()
    before = await scrape(hub)
    assert before["hubbub_written_bytes_total",] > 400 and before["hubbub_catch_ups_total",] == 1
    await client.close()
    await late.close()
    after = await until(hub, lambda found: found["hubbub_connections",] == 0)
    for name in ("hubbub_written_bytes_total", "hubbub_catch_ups_total"):
        assert after[name,] == before[name,]


async def test_who_is_cut_off_for_reading_nothing_is_counted(hub: Hub) -> None:
    """Once each."""
    await hub.start(stuck_seconds=0.2)
    client = await hub.connect("?sessionId=s1")
    (connection,) = hub.node.registry.connections
    with faulty(connection.transport, get_write_buffer_size=lambda: 2**30):  # as if nothing went into its socket
        assert await client.wait_closed() == 1006
    found = await until(hub, lambda found: found["hubbub_connections",] == 0)
    assert found["hubbub_aborted_clients_total",] == 1


async def test_a_loop_that_was_held_is_seen(hub: Hub) -> None:
    """The worst that it was is kept."""
    await hub.start()
    hub.node.registry.counters.worst_loop_lag = 7.0
    await until(hub, lambda found: found["hubbub_loop_lag_seconds",] > 0)
    assert (await scrape(hub))["hubbub_loop_lag_worst_seconds",] == 7.0


async def test_no_session_and_no_user_is_named(hub: Hub) -> None:
    """The labels are agents, protocols and stop reasons: few, and nobody's."""
    await hub.start()
    client = await hub.connect("?sessionId=secret-session")
    await client.send(type="chat", agentId="echo", sessionId="secret-session", message="secret")
    await client.until_done()
    assert "secret" not in str(await scrape(hub)) and "local" not in str(await scrape(hub))


async def test_the_page_names_each_metric(hub: Hub) -> None:
    """With its labels, and no other."""
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


async def test_what_is_answered_anew_is_no_message_that_was_accepted(hub: Hub) -> None:
    await hub.start()
    client = await hub.connect("?sessionId=s1", extended=True)
    end = await chat(client, "echo", "hello")
    await client.send(type="regenerate", sessionId="s1", messageId=end["messageId"])
    await client.until_done()
    found = await scrape(hub)
    assert (found["hubbub_chats_total",], found["hubbub_runs_started_total", "echo"]) == (1, 2)
