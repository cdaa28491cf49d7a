"""Scenarios that need a log, and the growth of the hub's costs."""

import asyncio
import functools
import json
import os
import select
import socket
import statistics
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from load import MARK, Work, measure
from servers import HUB, RunningServer, cpu_seconds, resident_kb, running
from wire import HOST, connect, frames, handshake, hub_path, send_json, until

from hub.ids import Key
from hub.limits import Limits
from hub.messages import Chunk, Event, RunFinished
from hub.seams import Seams
from hub.storage.open_log import open_log
from hub.storage.records import Append

Result = dict[str, Any]
RESUME_SECONDS = 60


def fill(data: Path, sessions: int, each: int) -> None:
    """Write a log with *sessions*; each has one answer of *each* events: tokens, and the end."""

    async def write() -> None:
        data.mkdir(parents=True, exist_ok=True)
        log = open_log(f"sqlite:///{data.resolve()}/hub.db", Limits(), Seams())
        await log.start(lambda session_id, events: None)
        try:
            for number in range(sessions):
                name, loop = f"old{number}", asyncio.get_running_loop()
                await log.sessions.make(Key(name))
                events = [Event("bench", "r", Chunk("m", f"#tok{n:016} ", n * 21)) for n in range(each - 1)]
                events.append(Event("bench", "r", RunFinished("m", "end_turn")))
                for start in range(0, each, 1000):
                    commit: asyncio.Future[int | Exception] = loop.create_future()
                    log.events.append(Append(Key(name), events[start : start + 1000]), commit.set_result)
                    await commit
        finally:
            await log.close()

    asyncio.run(write())


def tokens(data: bytes) -> list[bytes]:
    """Return the tokens of the complete frames in *data*, in order."""
    content = "".join(frame.get("content", "") for frame in map(json.loads, frames(data)))
    return content.encode().split(MARK)[1:]


def late_join(data: Path) -> Result:
    """Replay a session with one answer of 20,000 tokens, one event each, from its start."""
    fill(data, 1, 20_001)
    first_byte_seconds, counts = [], set()
    with running(HUB, data) as hub:
        for _ in range(10):
            start_time = time.perf_counter()
            sock = connect(hub.port, hub_path(sessionId="old0", afterSeq=0))
            received = sock.recv(1)
            first_byte_seconds.append(time.perf_counter() - start_time)
            received += until(sock, b'"done":true')
            counts.add(len(list(frames(received))))
            sock.close()
            if len(tokens(received)) != 20_000:
                raise SystemExit("a late join lost tokens")
    return {
        "tokens": 20_000,
        "frames": max(counts),
        "first_byte_ms": round(statistics.median(first_byte_seconds) * 1000, 1),
        "first_byte_cold_ms": round(first_byte_seconds[0] * 1000, 1),
    }


def storm(data: Path) -> Result:
    """Drop 2,000 clients of 20 sessions; 200 tokens later, all resume with their paths at once."""
    sessions, each, count = 20, 100, 200
    with running(HUB, data) as hub:
        watchers, clients, paths = [], [], []
        for number in range(sessions):
            watcher = connect(hub.port, hub_path())
            send_json(watcher, type="subscribe", sessionId=f"s{number}")
            answer = json.loads(next(frames(until(watcher, b"subscribed"))))
            watchers.append(watcher)
            paths.append(hub_path(sessionId=f"s{number}", afterSeq=answer["seq"], epoch=answer["epoch"]))
            clients += [connect(hub.port, hub_path(sessionId=f"s{number}")) for _ in range(each)]
        for sock in clients:  # a reset, as after the loss of a network
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        for number, watcher in enumerate(watchers):
            send_json(watcher, type="chat", agentId="bench", sessionId=f"s{number}", message=f"{count} 0.01")
        expected = [tokens(until(watcher, b'"done":true')) for watcher in watchers]
        time.sleep(1)
        cpu, start_time = cpu_seconds(hub.pid), time.perf_counter()
        times, wrong = resume(
            hub, [path for path in paths for _ in range(each)], [tokens_ for tokens_ in expected for _ in range(each)]
        )
        cpu = cpu_seconds(hub.pid) - cpu
    return {
        "clients": sessions * each,
        "tokens_each": count,
        "inexact": wrong + sum(len(tokens_) != count for tokens_ in expected),
        "median_s": round(statistics.median(times) - start_time, 2) if times else None,
        "last_s": round(max(times) - start_time, 2) if times else None,
        "cpu_s": round(cpu, 2),
    }


def resume(hub: RunningServer, paths: list[str], expected: list[list[bytes]]) -> tuple[list[float], int]:
    """Connect all clients at once; return the time when each caught up, and the number with wrong tokens."""
    epoll, socks, requests, received, times, wrong = select.epoll(), {}, {}, {}, [], 0
    for path, tokens_ in zip(paths, expected, strict=True):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((HOST, hub.port))
        socks[sock.fileno()], requests[sock.fileno()], received[sock.fileno()] = sock, (path, tokens_), b""
        epoll.register(sock, select.EPOLLOUT)
    end = time.perf_counter() + RESUME_SECONDS
    while socks and time.perf_counter() < end:
        for fd, event in epoll.poll(1):
            if event & select.EPOLLOUT:
                socks[fd].send(handshake(hub.port, requests[fd][0]))
                epoll.modify(fd, select.EPOLLIN)
                continue
            more = socks[fd].recv(1 << 18)
            received[fd] += more
            if not more or b'"done":true' in received[fd][-400:]:
                times.append(time.perf_counter())
                epoll.unregister(fd)
                socks.pop(fd).close()
    for fd, (_, tokens_) in requests.items():
        wrong += tokens(received[fd].partition(b"\r\n\r\n")[2]) != tokens_
    return times, wrong


def first_token(data: Path) -> Result:
    """Chat with echo repeatedly, with one client, and sync a file on the same disk in between."""
    waits, syncs = [], []
    with running(HUB, data) as hub, (data / "sync").open("wb", buffering=0) as file:
        sock = connect(hub.port, hub_path(sessionId="s"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 10, 0))
        for number in range(320):
            start_time = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            sync_end = time.perf_counter()
            send_json(sock, type="chat", agentId="echo", sessionId="s", message="hello")
            send_time = time.perf_counter()
            received = until(sock, b'"type":"stream"')
            receive_time = time.perf_counter()
            if b'"done":true' not in received:
                until(sock, b'"done":true')
            if number >= 20:  # the first 20 warm the hub up
                waits.append(receive_time - send_time)
                syncs.append(sync_end - start_time)
            time.sleep(0.005)
    wait, sync = statistics.median(waits) * 1000, statistics.median(syncs) * 1000
    return {
        "first_token_ms": round(wait, 2),
        "fsync_ms": round(sync, 2),
        "over_ms": round(wait - sync, 2),
        "first_token_p95_ms": round(sorted(waits)[int(len(waits) * 0.95)] * 1000, 2),
    }


def idle_connections(data: Path) -> Result:
    """Open 10,000 connections that send nothing."""
    count = 10_000
    with running(HUB, data) as hub:
        time.sleep(1)
        before = resident_kb(hub.pid)
        socks = [connect(hub.port, hub_path(sessionId=f"s{number % 100}")) for number in range(count)]
        time.sleep(1)
        memory = (resident_kb(hub.pid) - before) / count
        send_json(socks[0], type="chat", agentId="bench", sessionId="s0", message="1 0")
        answer_count = sum(b'"done":true' in until(sock, b'"done":true') for sock in socks[::100])
        for sock in socks:
            sock.close()
    return {"connections": count, "kb_per_connection": round(memory, 1), "answered": answer_count}


def growth_of(data: Path, work: Work, stored: int = 0) -> Result:
    if stored:
        fill(data, max(1, stored // 1000), 1000)
    with running(HUB, data) as hub:
        return measure(hub, work)


@attrs.frozen
class Extra:
    """One row of the second table; *run* gets an empty folder for the hub's data."""

    name: str
    run: Callable[[Path], Result]


def growth() -> list[Extra]:
    """Return measurements in which one quantity grows and the others stay the same."""
    extras = []
    for subscribers in (10, 100, 1000, 5000):
        work = Work(1, subscribers, 40, 0.1)
        extras.append(Extra(f"{subscribers:,} subscribers", functools.partial(growth_of, work=work)))
    for sessions in (1, 20, 200, 2000):
        work = Work(sessions, 1, 20, 0.2)
        extras.append(Extra(f"{sessions:,} session{'s' * (sessions > 1)}", functools.partial(growth_of, work=work)))
    for stored in (0, 100_000, 1_000_000):
        work = Work(20, 20, 150, 0.02)
        extras.append(Extra(f"{stored:,} events in the log", functools.partial(growth_of, work=work, stored=stored)))
    return extras


EXTRAS = [
    Extra("late join", late_join),
    Extra("reconnect storm", storm),
    Extra("first token", first_token),
    Extra("connections held", idle_connections),
]
