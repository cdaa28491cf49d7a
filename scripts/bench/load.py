"""The fan-out load: the same for every server; tokens are counted for each client.

A token is `#tok<time when it was due, in microseconds since the epoch> `. The model sends on a schedule that a slow
server does not delay (open loop), so the age of a token on arrival includes all waiting.
"""

import json
import select
import socket
import statistics
import time
from collections.abc import Sequence
from typing import Any

import attrs
from servers import RunningServer, cpu_seconds, resident_kb
from wire import connect, hub_path, send, send_json, until

MARK = b"#tok"
SETTLE_SECONDS = 0.3


@attrs.frozen
class Work:
    """Each of *sessions* has *subscribers*, who receive *tokens* every *gap* seconds (0: as fast as possible)."""

    sessions: int
    subscribers: int
    tokens: int = 0
    gap: float = 0.0
    seconds: float = 60.0


class Counter:
    """Counts the tokens of each client, also if a read splits a mark, and samples their age on arrival."""

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
        """Read until every client has received *each* tokens, for at most *seconds*."""
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
                earlier = self.tokens[fd]
                self.tokens[fd] = earlier + data.count(MARK)
                missing -= earlier < each <= self.tokens[fd]
                if fd in self.sampled:
                    self.sample(data)

    def sample(self, data: bytes) -> None:
        """Record the age of the first and the last complete token in *data*."""
        now = time.time_ns() / 1000
        first, last = data.find(MARK), data.rfind(MARK, 0, data.rfind(b" ") + 1)
        for offset in {first, last} - {-1}:
            stamp = data[offset + len(MARK) : data.find(b" ", offset)]
            if len(stamp) == 16 and stamp.isdigit():
                self.ages.append(now - int(stamp))


def join(server: RunningServer, session: str) -> socket.socket:
    """Connect one subscriber of *session*."""
    dialect = server.server.dialect
    if dialect == "socket.io":
        sock = connect(server.port, f"/socket.io/?EIO=4&transport=websocket&s={session}")
        until(sock, b"sid")
        send(sock, "40")
        until(sock, b"sid")
    elif dialect == "hub":
        sock = connect(server.port, hub_path(), server.key)
        send_json(sock, type="subscribe", sessionId=session)
        if server.key and b"unknown_session" in until(sock, b"}"):  # with sign-in, a session must exist
            send_json(sock, type="chat", agentId="bench", sessionId=session, message="0 0")
            until(sock, b'"done":true')
        elif not server.key:
            until(sock, b"subscribed")
    else:
        sock = connect(server.port, f"/?s={session}")
    return sock


def start(server: RunningServer, sock: socket.socket, session: str, tokens: int, gap: float) -> None:
    """Start the model of *session*."""
    dialect = server.server.dialect
    if dialect == "socket.io":
        send(sock, "42" + json.dumps(["go", session, tokens, gap]))
    elif dialect == "hub":
        send_json(sock, type="chat", agentId="bench", sessionId=session, message=f"{tokens} {gap}")
    else:
        send(sock, f"go {tokens} {gap}")
    sock.setblocking(False)


def measure(server: RunningServer, work: Work) -> dict[str, Any]:
    """Run *work* once on a fresh server; return the delivered tokens and their cost.

    One token per session comes before the measurement, so that the cost of creating a session does not count.
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
    memory = (resident_kb(server.pid) - before) / len(socks)
    counter = Counter(socks)

    def run_models(tokens: int, gap: float) -> None:
        for sock, session in leaders:
            start(server, sock, session, tokens, gap)
        counter.run(tokens, work.seconds)

    if work.tokens:
        run_models(1, 0)
        time.sleep(SETTLE_SECONDS)
    counter.reset()
    cpu, start_time = cpu_seconds(server.pid), time.perf_counter()
    if work.tokens:
        run_models(work.tokens, work.gap)
    wall, cpu = time.perf_counter() - start_time, cpu_seconds(server.pid) - cpu
    delivered = sum(min(count, work.tokens) for count in counter.tokens.values())
    ages = sorted(counter.ages) if work.gap else []
    for sock in socks:
        sock.close()
    return {
        "connections": len(socks),
        "delivered": delivered,
        "missing": len(socks) * work.tokens - delivered,
        "surplus": sum(counter.tokens.values()) - delivered,
        "wall_s": round(wall, 2),
        "cpu_us": round(cpu / delivered * 1e6, 3) if delivered else None,
        "bytes_per_token": round(counter.bytes / delivered, 1) if delivered else None,
        "reads_per_token": round(counter.reads / delivered, 3) if delivered else None,
        "age_p50_ms": round(ages[len(ages) // 2] / 1000, 2) if ages else None,
        "age_p99_ms": round(ages[int(len(ages) * 0.99)] / 1000, 2) if ages else None,
        "kb_per_connection": round(memory, 1),
    }


def median(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure, and the maximum of missing and surplus tokens."""

    def middle(name: str) -> float | None:
        values = [result[name] for result in rounds if result[name] is not None]
        return statistics.median(values) if values else None

    medians = {name: middle(name) for name in rounds[0]}
    return (
        medians
        | {name: max(result[name] for result in rounds) for name in ("missing", "surplus")}
        | {"rounds": len(rounds)}
    )
