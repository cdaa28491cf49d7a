"""The scenarios that only a log makes possible, and how the hub's costs grow."""

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
from servers import HUB, Running, cpu_seconds, resident_kb, running
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
    """Write a log in which every one of *sessions* holds an answer of *each* events, tokens to all but the last."""

    async def write() -> None:
        data.mkdir(parents=True, exist_ok=True)
        log = open_log(f"sqlite:///{data.resolve()}/hub.db", Limits(), Seams())
        await log.start(lambda session_id, events: None)
        try:
            for number in range(sessions):
                name, loop = f"old{number}", asyncio.get_running_loop()
                await log.sessions.make(Key(name))
                events = [Event("bench", "r", Chunk("m", f"#tok{at:016} ", at * 21)) for at in range(each - 1)]
                events.append(Event("bench", "r", RunFinished("m", "end_turn")))
                for at in range(0, each, 1000):
                    done: asyncio.Future[int | Exception] = loop.create_future()
                    log.events.append(Append(Key(name), events[at : at + 1000]), done.set_result)
                    await done
        finally:
            await log.close()

    asyncio.run(write())


def tokens(data: bytes) -> list[bytes]:
    """Return the tokens that whole frames brought, in order."""
    content = "".join(frame.get("content", "") for frame in map(json.loads, frames(data)))
    return content.encode().split(MARK)[1:]


def late_join(data: Path) -> Result:
    """Join a session that holds one answer of 20,000 tokens, each an event of its own, from its beginning."""
    fill(data, 1, 20_001)
    firsts, counts = [], set()
    with running(HUB, data) as hub:
        for _ in range(10):
            began = time.perf_counter()
            sock = connect(hub.port, hub_path(sessionId="old0", afterSeq=0))
            got = sock.recv(1)
            firsts.append(time.perf_counter() - began)
            got += until(sock, b'"done":true')
            counts.add(len(list(frames(got))))
            sock.close()
            if len(tokens(got)) != 20_000:
                raise SystemExit("a late join lost tokens")
    return {
        "tokens": 20_000,
        "frames": max(counts),
        "first_byte_ms": round(statistics.median(firsts) * 1000, 1),
        "first_byte_cold_ms": round(firsts[0] * 1000, 1),
    }


def storm(data: Path) -> Result:
    """Drop 2,000 clients of 20 sessions at once; each resumes where it was, 200 tokens later."""
    sessions, each, count = 20, 100, 200
    with running(HUB, data) as hub:
        watchers, dropped, cursors = [], [], []
        for number in range(sessions):
            watcher = connect(hub.port, hub_path())
            send_json(watcher, type="subscribe", sessionId=f"s{number}")
            answer = json.loads(next(frames(until(watcher, b"subscribed"))))
            watchers.append(watcher)
            cursors.append(hub_path(sessionId=f"s{number}", afterSeq=answer["seq"], epoch=answer["epoch"]))
            dropped += [connect(hub.port, hub_path(sessionId=f"s{number}")) for _ in range(each)]
        for sock in dropped:  # a reset, as from a network that is gone
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        for number, watcher in enumerate(watchers):
            send_json(watcher, type="chat", agentId="bench", sessionId=f"s{number}", message=f"{count} 0.01")
        heard = [tokens(until(watcher, b'"done":true')) for watcher in watchers]
        time.sleep(1)
        cpu, began = cpu_seconds(hub.pid), time.perf_counter()
        times, wrong = resume(
            hub, [path for path in cursors for _ in range(each)], [one for one in heard for _ in range(each)]
        )
        cpu = cpu_seconds(hub.pid) - cpu
    return {
        "clients": sessions * each,
        "tokens_each": count,
        "inexact": wrong + sum(len(one) != count for one in heard),
        "median_s": round(statistics.median(times) - began, 2) if times else None,
        "last_s": round(max(times) - began, 2) if times else None,
        "cpu_s": round(cpu, 2),
    }


def resume(hub: Running, paths: list[str], want: list[list[bytes]]) -> tuple[list[float], int]:
    """Connect all at once; return when each had caught up, and how many did not get exactly what they should."""
    epoll, socks, asked, got, times, wrong = select.epoll(), {}, {}, {}, [], 0
    for path, tokens_ in zip(paths, want, strict=True):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((HOST, hub.port))
        socks[sock.fileno()], asked[sock.fileno()], got[sock.fileno()] = sock, (path, tokens_), b""
        epoll.register(sock, select.EPOLLOUT)
    end = time.perf_counter() + RESUME_SECONDS
    while socks and time.perf_counter() < end:
        for fd, happened in epoll.poll(1):
            if happened & select.EPOLLOUT:
                socks[fd].send(handshake(hub.port, asked[fd][0]))
                epoll.modify(fd, select.EPOLLIN)
                continue
            more = socks[fd].recv(1 << 18)
            got[fd] += more
            if not more or b'"done":true' in got[fd][-400:]:
                times.append(time.perf_counter())
                epoll.unregister(fd)
                socks.pop(fd).close()
    for fd, (_, tokens_) in asked.items():
        wrong += tokens(got[fd].partition(b"\r\n\r\n")[2]) != tokens_
    return times, wrong


def first_token(data: Path) -> Result:
    """Chat with echo again and again, one client alone, and write to the same disk in between."""
    waits, syncs = [], []
    with running(HUB, data) as hub, (data / "sync").open("wb", buffering=0) as file:
        sock = connect(hub.port, hub_path(sessionId="s"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 10, 0))
        for number in range(320):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            synced = time.perf_counter()
            send_json(sock, type="chat", agentId="echo", sessionId="s", message="hello")
            sent = time.perf_counter()
            got = until(sock, b'"type":"stream"')
            heard = time.perf_counter()
            if b'"done":true' not in got:
                until(sock, b'"done":true')
            if number >= 20:  # the first ones warm it up
                waits.append(heard - sent)
                syncs.append(synced - began)
            time.sleep(0.005)
    wait, sync = statistics.median(waits) * 1000, statistics.median(syncs) * 1000
    return {
        "first_token_ms": round(wait, 2),
        "fsync_ms": round(sync, 2),
        "over_ms": round(wait - sync, 2),
        "first_token_p95_ms": round(sorted(waits)[int(len(waits) * 0.95)] * 1000, 2),
    }


def held(data: Path) -> Result:
    """Hold 10,000 connections that say nothing."""
    count = 10_000
    with running(HUB, data) as hub:
        time.sleep(1)
        before = resident_kb(hub.pid)
        socks = [connect(hub.port, hub_path(sessionId=f"s{number % 100}")) for number in range(count)]
        time.sleep(1)
        memory = (resident_kb(hub.pid) - before) / count
        send_json(socks[0], type="chat", agentId="bench", sessionId="s0", message="1 0")
        answered = sum(b'"done":true' in until(sock, b'"done":true') for sock in socks[::100])
        for sock in socks:
            sock.close()
    return {"connections": count, "kb_per_connection": round(memory, 1), "answered": answered}


def growth_of(data: Path, work: Work, kept: int = 0) -> Result:
    if kept:
        fill(data, max(1, kept // 1000), 1000)
    with running(HUB, data) as hub:
        return measure(hub, work)


@attrs.frozen
class Extra:
    """One row of the second table; *run* gets a folder of its own for the hub's data."""

    name: str
    run: Callable[[Path], Result]


def growth() -> list[Extra]:
    """One measure grows at a time; the rest is as it was."""
    found = []
    for subscribers in (10, 100, 1000, 5000):
        work = Work(1, subscribers, 40, 0.1)
        found.append(Extra(f"{subscribers:,} subscribers", functools.partial(growth_of, work=work)))
    for sessions in (1, 20, 200, 2000):
        work = Work(sessions, 1, 20, 0.2)
        found.append(Extra(f"{sessions:,} session{'s' * (sessions > 1)}", functools.partial(growth_of, work=work)))
    for kept in (0, 100_000, 1_000_000):
        work = Work(20, 20, 150, 0.02)
        found.append(Extra(f"{kept:,} events in the log", functools.partial(growth_of, work=work, kept=kept)))
    return found


EXTRAS = [
    Extra("late join", late_join),
    Extra("reconnect storm", storm),
    Extra("first token", first_token),
    Extra("connections held", held),
]
