"""The fan-out work: the same for every server, and counted for each client by itself.

A token is `#tok<microseconds since the epoch at which it was due> `. The model speaks on a schedule that a late server
does not slow (open loop), so the age of a token when it arrives holds all its waiting.
"""

import json
import select
import socket
import statistics
import time
from collections.abc import Sequence
from typing import Any

import attrs
from servers import Running, cpu_seconds, resident_kb
from wire import connect, hub_path, send, send_json, until

MARK = b"#tok"
SETTLE_SECONDS = 0.3


@attrs.frozen
class Work:
    """*sessions* of *subscribers* each hear *tokens*, *gap* seconds apart (0: as fast as the server goes)."""

    sessions: int
    subscribers: int
    tokens: int = 0
    gap: float = 0.0
    seconds: float = 60.0


class Counter:
    """Counts each client's tokens, across reads that cut a mark in two, and samples their age on arrival."""

    def __init__(self, socks: list[socket.socket]):
        self.epoll = select.epoll()
        self.socks = {sock.fileno(): sock for sock in socks}
        for fd, sock in self.socks.items():
            sock.setblocking(False)
            self.epoll.register(fd, select.EPOLLIN)
        step = max(1, len(socks) // 40)
        self.sampled = {sock.fileno() for sock in socks[::step]}
        self.view = memoryview(bytearray(1 << 18))
        self.reset()

    def reset(self) -> None:
        self.tokens = dict.fromkeys(self.socks, 0)
        self.tail = dict.fromkeys(self.socks, b"")
        self.bytes = self.reads = 0
        self.ages: list[float] = []

    def run(self, each: int, seconds: float) -> None:
        """Read until every client has had *each* tokens, for at most *seconds*."""
        missing, end = len(self.socks), time.perf_counter() + seconds
        while missing and time.perf_counter() < end and self.socks:
            for fd, _ in self.epoll.poll(1):
                size = self.socks[fd].recv_into(self.view)
                if not size:
                    self.epoll.unregister(fd)
                    del self.socks[fd]
                    continue
                self.reads += 1
                self.bytes += size
                data = self.tail[fd] + self.view[:size].tobytes()
                self.tail[fd] = data[-(len(MARK) - 1) :]
                had = self.tokens[fd]
                self.tokens[fd] = had + data.count(MARK)
                missing -= had < each <= self.tokens[fd]
                if fd in self.sampled:
                    self.sample(data)

    def sample(self, data: bytes) -> None:
        """Note the age of the oldest and of the newest whole token in *data*."""
        now = time.time_ns() / 1000
        first, last = data.find(MARK), data.rfind(MARK, 0, data.rfind(b" ") + 1)
        for at in {first, last} - {-1}:
            stamp = data[at + len(MARK) : data.find(b" ", at)]
            if len(stamp) == 16 and stamp.isdigit():
                self.ages.append(now - int(stamp))


def join(server: Running, session: str) -> socket.socket:
    """Connect one subscriber of *session*."""
    dialect = server.server.dialect
    if dialect == "socket.io":
        sock = connect(server.port, f"/socket.io/?EIO=4&transport=websocket&s={session}")
        until(sock, b"sid")
        send(sock, "40")
        until(sock, b"sid")
    elif dialect == "hub":
        sock = connect(server.port, hub_path())
        send_json(sock, type="subscribe", sessionId=session)
        until(sock, b"subscribed")
    else:
        sock = connect(server.port, f"/?s={session}")
    return sock


def start(server: Running, sock: socket.socket, session: str, tokens: int, gap: float) -> None:
    """Let the model of *session* speak."""
    dialect = server.server.dialect
    if dialect == "socket.io":
        send(sock, "42" + json.dumps(["go", session, tokens, gap]))
    elif dialect == "hub":
        send_json(sock, type="chat", agentId="bench", sessionId=session, message=f"{tokens} {gap}")
    else:
        send(sock, f"go {tokens} {gap}")
    sock.setblocking(False)


def measure(server: Running, work: Work) -> dict[str, Any]:
    """Let a server that was just started do *work* once; return what was delivered, and what it cost the server.

    Each session has one token first: what a session costs to make is not what a token costs to deliver.
    """
    time.sleep(SETTLE_SECONDS)
    before = resident_kb(server.pid)
    socks: list[socket.socket] = []
    leaders: list[tuple[socket.socket, str]] = []
    for number in range(work.sessions):
        session = f"s{number}"
        group = [join(server, session) for _ in range(work.subscribers)]
        socks += group
        leaders.append((group[0], session))
    time.sleep(SETTLE_SECONDS)
    held = (resident_kb(server.pid) - before) / len(socks)
    counter = Counter(socks)

    def speak(tokens: int, gap: float) -> None:
        for sock, session in leaders:
            start(server, sock, session, tokens, gap)
        counter.run(tokens, work.seconds)

    if work.tokens:
        speak(1, 0)
        time.sleep(SETTLE_SECONDS)
    counter.reset()
    cpu, began = cpu_seconds(server.pid), time.perf_counter()
    if work.tokens:
        speak(work.tokens, work.gap)
    wall, cpu = time.perf_counter() - began, cpu_seconds(server.pid) - cpu
    got = sum(min(count, work.tokens) for count in counter.tokens.values())
    ages = sorted(counter.ages) if work.gap else []
    for sock in socks:
        sock.close()
    return {
        "connections": len(socks),
        "delivered": got,
        "missing": len(socks) * work.tokens - got,
        "surplus": sum(counter.tokens.values()) - got,
        "wall_s": round(wall, 2),
        "cpu_us": round(cpu / got * 1e6, 3) if got else None,
        "bytes_per_token": round(counter.bytes / got, 1) if got else None,
        "reads_per_token": round(counter.reads / got, 3) if got else None,
        "age_p50_ms": round(ages[len(ages) // 2] / 1000, 2) if ages else None,
        "age_p99_ms": round(ages[int(len(ages) * 0.99)] / 1000, 2) if ages else None,
        "kb_per_connection": round(held, 1),
    }


def median(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure; of what is missing or too much, the worst."""

    def middle(name: str) -> float | None:
        values = [one[name] for one in rounds if one[name] is not None]
        return statistics.median(values) if values else None

    found = {name: middle(name) for name in rounds[0]}
    return found | {name: max(one[name] for one in rounds) for name in ("missing", "surplus")} | {"rounds": len(rounds)}
