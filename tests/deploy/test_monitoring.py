"""The dashboard and the alert rules of deploy/ fit the metrics of a hub, and Prometheus can evaluate them."""

import asyncio
import json
import re
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.documents import ROOT
from support.hub import Hub
from support.waiting import PATIENCE

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "hubbub.json").read_text())
VARIABLES = {"$instance": ".*", "$agent": ".*", "$__rate_interval": "1m"}
METRIC = re.compile(r"\b((?:hubbub|process)_[a-z_]+)(?:\{([^}]*)\})?")
# The labels that Prometheus adds, and the one of histograms.
OUTER_LABELS = {"instance", "job", "le", "alertname", "alertstate"}

needs_promtool = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")), reason="no promtool here: apt-get install prometheus"
)


def queries() -> Iterator[str]:
    """Yield the queries of the dashboard's panels."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def alert_expressions() -> list[str]:
    """Return the expressions of the alert rules, each in one line."""
    text = re.sub(r">-\n\s+", "", ALERTS.read_text())
    found = re.findall(r"^        expr: (.*(?:\n          .*)*)", text, re.MULTILINE)
    assert len(found) == text.count("- alert:")
    return found


async def scrape(hub: Hub) -> dict[str, set[str]]:
    """Return the labels of each metric, by the names that queries use."""
    async with aiohttp.ClientSession() as http, http.get(f"{hub.url}/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    names: dict[str, set[str]] = {}
    for family in families:
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}.get(family.type, ("",))
        for suffix in suffixes:
            names[family.name + suffix] = {label for sample in family.samples for label in sample.labels}
    return names


async def use(hub: Hub) -> None:
    """Let a hub count something of everything."""
    await hub.start()
    client = await hub.connect("?sessionId=s1")
    await client.send(type="chat", agentId="echo", sessionId="s1", message="hello there")
    await client.until_done()
    other = await hub.connect()
    await other.close()
    hub.door.counters.door.sign_ins["link"] += 1


@pytest.mark.parametrize("place", ["dashboard", "alerts"])
async def test_every_metric_and_label_exists(hub: Hub, place: str) -> None:
    """In the metrics of a running hub."""
    await use(hub)
    metrics = await scrape(hub)
    all_labels = OUTER_LABELS.union(*metrics.values())
    expressions = [*queries()] if place == "dashboard" else alert_expressions()
    names = set()
    for expression in expressions:
        for name, selectors in METRIC.findall(expression):
            labels = set(re.findall(r"(\w+)\s*[=!]~?", selectors))
            assert name in metrics, expression
            assert labels <= metrics[name] | OUTER_LABELS, expression
            names.add(name)
        for group in re.findall(r"(?:by|without) \(([^)]*)\)", expression):
            assert set(re.split(r",\s*", group)) <= all_labels, expression
    assert len(names) > 10


async def test_the_dashboard_shows_every_metric_of_the_hub(hub: Hub) -> None:
    await use(hub)
    text = " ".join(queries())
    missing = {name for name in await scrape(hub) if name.startswith("hubbub_") and name not in text}
    assert {name for name in missing if not name.endswith(("_sum", "_count", "_bucket"))} == set()


def test_the_variables_of_the_dashboard_are_defined() -> None:
    """And used."""
    variables = {f"${item['name']}" for item in DASHBOARD["templating"]["list"]} | {"$__rate_interval"}
    text = json.dumps(DASHBOARD)
    uses = set(re.findall(r"\$[a-z_]+", text.replace("${datasource}", "$datasource"))) - {"$__all"}
    assert uses == variables


def test_the_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    """Grafana would move them."""
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells and place["x"] + place["w"] <= 24, panel["title"]
        cells |= own
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


# --- with Prometheus --------------------------------------------------------------------------------------------------


async def run_promtool(*arguments: str, folder: Path = ALERTS.parent) -> str:
    process = await asyncio.create_subprocess_exec(
        *("promtool", *arguments), cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(2 * PATIENCE):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@needs_promtool
async def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    assert "SUCCESS" in await run_promtool("check", "rules", ALERTS.name)
    assert "is valid" in await run_promtool("check", "config", "prometheus.yml")


@needs_promtool
async def test_each_alert_fires() -> None:
    """On a series that shows its cause, and none fires on a hub that works."""
    assert "SUCCESS" in await run_promtool("test", "rules", "alerts_test.yml")
    tests = (DEPLOY / "prometheus" / "alerts_test.yml").read_text()
    names = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    assert [name for name in names if name not in tests] == []


@asynccontextmanager
async def run_prometheus(folder: Path, hub: Hub) -> AsyncIterator[str]:
    """Run Prometheus with the rules on a hub, and yield its address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    config = config.replace("localhost:9527", f"127.0.0.1:{hub.port}").replace("alerts.yml", str(ALERTS))
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 1s}\n" + config)
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        *("--config.file", str(folder / "prometheus.yml"), "--storage.tsdb.path", str(folder / "tsdb")),
        *("--web.listen-address", f"127.0.0.1:{port}", "--log.level", "error"),
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def query(http: aiohttp.ClientSession, url: str, expression: str) -> list[Any]:
    async with http.get(f"{url}/api/v1/query", params={"query": expression}) as response:
        answer = await response.json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    result: list[Any] = answer["data"]["result"]
    return result


@needs_promtool
async def test_prometheus_has_an_answer_to_each_query_of_the_dashboard(hub: Hub, tmp_path: Path) -> None:
    """Prometheus reads a running hub. A panel that is empty then shows only what did not happen."""
    await use(hub)
    async with run_prometheus(tmp_path, hub) as url, aiohttp.ClientSession() as http:
        async with asyncio.timeout(2 * PATIENCE):
            while True:
                try:
                    if await query(http, url, "rate(hubbub_chats_total[1m])"):  # it has read the hub twice
                        break
                except aiohttp.ClientError:  # it starts
                    pass
                await asyncio.sleep(0.1)
        empty = []
        for expression in queries():
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            if not await query(http, url, expression):
                empty.append(expression)
        for expression in alert_expressions():
            await query(http, url, expression)
    assert [expression for expression in empty if not expression.endswith("> 0")] == []
