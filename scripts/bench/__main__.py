"""Measures the hub and its peers: `make bench`. The results are in build/bench."""

import argparse
import datetime
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from extras import EXTRAS, Extra, growth
from load import Work, measure, median
from report import line, write
from servers import BUILD, BUN, HUB, NODE_WS, PEERS, SIGNED_HUB, Server, install, running

IDLE = {"idle": Work(20, 100)}
WORKS = {
    "paced": Work(20, 20, 250, 0.02),
    "many": Work(400, 2, 100, 0.05),
    "wide": Work(1, 1000, 250, 0.02),
    "fast": Work(20, 20, 1000, 0.005),
    "flood": Work(1, 1000, 1500, 0.002),
}
TABLES = ("burst", *WORKS, *IDLE, "extras", "growth")
# Work that takes more than a minute shows only that the server is too slow for it.
TOO_SLOW = {
    "python-socketio": {"wide", "fast", "flood", "many"},
    "node socket.io": {"fast", "flood"},
    "starlette": {"fast", "flood"},
    "aiohttp naive": {"flood"},
}
# Servers with closely compared figures take turns, ROUNDS times each; the table has their medians.
IN_TURNS = {"paced": (HUB, SIGNED_HUB, BUN), "wide": (HUB, SIGNED_HUB), "many": (HUB, BUN, NODE_WS)}
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=TABLES, help="scenarios: %(choices)s")
    parser.add_argument("--servers", nargs="+", metavar="NAME", help="hub, bun, ws ...: parts of the servers' names")
    parser.add_argument("--page", type=Path, help="also write the tables and plots into this Markdown page")
    options = parser.parse_args()
    for part in options.servers or ():
        if not any(part in server.name for server in (HUB, SIGNED_HUB, *PEERS)):
            parser.error(
                f"--servers {part}: there are {', '.join(server.name for server in (HUB, SIGNED_HUB, *PEERS))}"
            )
    prepare_process()
    BUILD.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    servers = (HUB, SIGNED_HUB, *install())
    if options.servers:
        servers = tuple(server for server in servers if any(part in server.name for part in options.servers))
    steps = [step for step in plan(servers) if not options.only or step[0] in options.only]
    results: dict[str, dict[str, Any]] = {}
    for number, (table, names, run) in enumerate(steps, 1):
        data = BUILD / "data"
        shutil.rmtree(data, ignore_errors=True)
        for name, result in zip(names, run(data), strict=True):
            results.setdefault(table, {})[name] = result
            print(f"[{number:>2}/{len(steps)} {clock(start)}] {table:<7} {name:<24} {line(result)}", flush=True)
    shutil.rmtree(BUILD / "data", ignore_errors=True)
    write(results, machine(), BUILD, options.page)
    print(f"Tables, plots and figures: {os.path.relpath(BUILD)}/results.md, *.svg, results.json", flush=True)


def prepare_process() -> None:
    """Move to the second CPU and raise the limit of open files; the server gets the first CPU."""
    if sys.platform != "linux":
        raise SystemExit("The benchmark reads a server's processor time from /proc: it needs Linux.")
    if not {0, 1} <= os.sched_getaffinity(0):
        raise SystemExit("The benchmark needs two processors: one for the server, one for the load.")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < 12_000:
        raise SystemExit(f"The benchmark opens 10,000 connections, and this shell may open {most} files: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536) if most > 0 else 65_536, most))
    os.sched_setaffinity(0, {1})


Step = tuple[str, tuple[str, ...], Callable[[Path], list[dict[str, Any]]]]


def plan(servers: tuple[Server, ...]) -> list[Step]:
    """Return all steps: table, names of the rows, function. All servers do one work before the next work."""
    steps: list[Step] = []

    def step(table: str, work: Work, *turns: Server) -> None:
        def run(data: Path) -> list[dict[str, Any]]:
            rounds: list[list[dict[str, Any]]] = [[] for _ in turns]
            for number in range(ROUNDS if len(turns) > 1 else 1):
                for server, results in zip(turns, rounds, strict=True):
                    with running(server, data / f"{number}{server.name[:6]}") as process:
                        results.append(measure(process, work))
            return [median(results) for results in rounds]

        steps.append((table, tuple(server.name for server in turns), run))

    def alone(extra: Extra) -> Callable[[Path], list[dict[str, Any]]]:
        return lambda data: [extra.run(data)]

    alone_servers = [server for server in servers if server is not SIGNED_HUB]  # it is only compared with the hub
    for server in alone_servers:
        step("burst", Work(1, 200, server.burst), server)
    for table, work in (WORKS | IDLE).items():
        turns = [server for server in IN_TURNS.get(table, ()) if server in servers]
        if turns:
            step(table, work, *turns)
        for server in alone_servers:
            if server not in turns and table not in TOO_SLOW.get(server.name, ()):
                step(table, work, server)
    if HUB in servers:
        for kind, extras in (("extras", EXTRAS), ("growth", growth())):
            steps += [(kind, (extra.name,), alone(extra)) for extra in extras]
    return steps


def clock(start: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - start), 60)
    return f"{minutes}:{seconds:02}"


def machine() -> dict[str, str]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.date.today().isoformat(),
        "processors": f"{os.cpu_count()} x {models[0].partition(':')[2].strip() if models else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
