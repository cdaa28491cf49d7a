"""The local model: llama.cpp's server in a child process, for all agents of the hub that need one.

This file is both ends: the hub imports it, and the child is `python -m hub.adapters.local_model MODEL`. On its stdin
the child gets one line, the key that its callers must show, and then nothing: the end of the file is the end of the
hub, also after kill -9. On its stdout it says one line, its address, once the model is loaded.
"""

import asyncio
import importlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import structlog

from hub.errors import AgentError

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "smollm2-135m-instruct"
# Tokens of one conversation with its answer. A token is at least one byte, so WINDOW_BYTES of text always fit beside
# ANSWER_TOKENS. The window is kept small for the wait before the first word: one thread reads about 150 tokens/s, so
# 2 KiB of English (500 tokens) take 3 s and of Chinese (1,400) 9 s.
CONTEXT_TOKENS = 4096
WINDOW_BYTES = 2048
ANSWER_TOKENS = 256
CONVERSATIONS = 2  # answered side by side; others wait in llama.cpp's queue
LOAD_SECONDS = 120.0
STEADY_SECONDS = 10.0  # a child that lived so long is started again at once
MAX_PAUSE_SECONDS = 30.0

log = structlog.get_logger(__name__)


@attrs.frozen
class Endpoint:
    """Where the child listens, and the key it wants to see: other users and web pages of this machine have none."""

    base_url: str
    key: str = attrs.field(repr=False)


def file(cache: Path, data: Path) -> Path:
    """Return where the model lies, or would: in the cache, else in the data folder, where it was put at first."""
    target, old = (folder / "models" / FILE for folder in (cache, data))
    return old if old.is_file() and not target.is_file() else target


def installed(cache: Path, data: Path) -> bool:
    """Say whether both the model and its engine are there."""
    return file(cache, data).is_file() and importlib.util.find_spec("xllamacpp") is not None


@attrs.define(eq=False, kw_only=True)
class LocalModel:
    """One child process, started again whenever it dies; its output goes to a file in the data folder."""

    cache: Path
    data: Path
    users: int = 0
    pid: int | None = None  # of a child that is ready
    _ready: asyncio.Future[Endpoint] = attrs.field(factory=lambda: asyncio.get_running_loop().create_future())
    _task: asyncio.Task[None] | None = None

    async def endpoint(self) -> Endpoint:
        """Wait until the model is loaded; raises AgentError where it does not come up."""
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            raise AgentError(
                "The local model is still loading: try again in a moment.", "model_timeout", retryable=True
            ) from None

    def start(self) -> None:
        """Begin to load, in the background."""
        self.data.mkdir(parents=True, exist_ok=True)
        self._log_file.write_bytes(b"")
        self._task = asyncio.create_task(self._keep_alive())

    async def stop(self) -> None:
        """End the child, and wait until it has gone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._fail("The local model was stopped.")

    def _fail(self, message: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(AgentError(message, "model_unreachable", retryable=True))
            self._ready.exception()  # seen: it is no fault that nobody was waiting

    @property
    def _log_file(self) -> Path:
        return self.data / "model.log"

    async def _keep_alive(self) -> None:
        """Start the child again and again: at once where it had lived well, else after a pause that grows."""
        failures = 0
        while True:
            began = time.monotonic()
            code = await self._live()
            failures = 0 if time.monotonic() - began > STEADY_SECONDS else failures + 1
            pause = min(MAX_PAUSE_SECONDS, 0.25 * 2 ** (failures - 1)) if failures else 0.0
            log.warning("local model died", exit=code, log=str(self._log_file), restart_in=pause)
            await asyncio.sleep(pause)
            if self._ready.done():
                self._ready = asyncio.get_running_loop().create_future()

    async def _live(self) -> int | None:
        """Run one child from its start to its death; its exit code is None where it could not even be started."""
        key = secrets.token_urlsafe()
        try:
            child = self._spawn(key)
        except OSError as error:
            log.warning("local model cannot be started", reason=str(error))
            self._fail("The local model does not start.")
            return None
        log.info("local model loading; an answer that comes before it is ready waits", model=NAME)
        try:
            await self._listen(child, key)
        finally:
            child.kill()
            code = child.wait()  # a moment: its pipe is closed or it was killed
            if child.stdin:
                child.stdin.close()
        return code

    async def _listen(self, child: subprocess.Popen[bytes], key: str) -> None:
        """Hear where the child serves, and then nothing more until its pipe ends, which is when it does."""
        said = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(said), child.stdout
        )
        try:
            first = await said.readline()
            if not first.endswith(b"\n"):
                return self._fail("The local model does not start.")
            self._ready.set_result(Endpoint(json.loads(first)["base_url"], key))
            self.pid = child.pid
            log.info("local model ready", model=NAME, pid=child.pid)
            await said.read()
            self._ready = asyncio.get_running_loop().create_future()
        finally:
            self.pid = None
            pipe.close()

    def _spawn(self, key: str) -> subprocess.Popen[bytes]:
        # Not asyncio's: uvloop 0.23 ignores close_fds, and the child would hold the hub's sockets and lock.
        with self._log_file.open("ab") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", "hub.adapters.local_model", str(file(self.cache, self.data))],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                close_fds=True,
                start_new_session=True,  # Ctrl-C is for the hub, which ends its runs before the model
            )
        if child.stdin:
            with suppress(BrokenPipeError):  # dead already: its end is seen on the other pipe
                child.stdin.write(key.encode() + b"\n")
        return child


_models: dict[Path, LocalModel] = {}


@asynccontextmanager
async def use(cache: Path, data: Path) -> AsyncIterator[LocalModel]:
    """Share the one child for *data*: the first user starts it, with the model of its *cache*; the last one ends it."""
    data = data.resolve()
    if data not in _models:
        _models[data] = LocalModel(cache=cache, data=data)
        _models[data].start()
    model = _models[data]
    model.users += 1
    try:
        yield model
    finally:
        model.users -= 1
        if not model.users:
            del _models[data]
            await model.stop()


def serve(model: Path) -> None:
    """Be the child: load *model*, say where, and live as long as the hub does."""
    hub = os.getppid()
    answers = os.dup(1)
    os.dup2(2, 1)  # what llama.cpp prints is not for the hub
    key = sys.stdin.readline().strip()
    threading.Thread(target=_die_with_stdin, daemon=True).start()
    server = _load(model, key)
    os.write(answers, json.dumps({"base_url": f"{server.listening_address}/v1"}).encode() + b"\n")
    while os.getppid() == hub:  # a stray copy of the pipe, in another child of the hub, must not keep this one alive
        time.sleep(1)
    os._exit(0)


def _die_with_stdin() -> None:
    while sys.stdin.read(1):
        pass
    os._exit(0)


def _load(model: Path, key: str) -> Any:
    xllamacpp = importlib.import_module("xllamacpp")  # not there at all where nobody fetched the model
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # a free one
    params.api_keys = [key]
    params.cors_origins = ""  # the default lets every web page in
    params.ui = False
    params.endpoint_slots = False  # it would show other people's prompts
    params.n_ctx = CONTEXT_TOKENS * CONVERSATIONS
    params.n_parallel = CONVERSATIONS
    params.cache_ram_mib = 0  # else up to 8 GiB of old prompts
    params.cache_idle_slots = False
    # One core is left to the others. llama.cpp's threads wait for each other at every step: with 2 threads on 2 cores
    # one busy neighbour took it from 94 to 28 tokens/s (with a lower priority to less than one); one thread kept 60.
    threads = max(1, min(4, (os.cpu_count() or 1) - 1))
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cpuparams.poll = params.cpuparams_batch.poll = 0  # no spinning between two answers' steps
    params.n_threads_http = 2 * CONVERSATIONS + 4
    params.verbosity = 2  # warnings: the log holds no line per answer, so it does not grow
    return xllamacpp.Server(params)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
