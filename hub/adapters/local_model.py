"""Run the local model: llama.cpp's server in a child process, shared by all agents of the hub that use it.

Both processes use this module: the hub imports it, the child runs `python -m hub.adapters.local_model MODEL`. The child
reads one line from its stdin: the key that its clients must send. When the model is loaded, the child writes one line
to its stdout: its URL, as JSON. The child exits when its stdin closes, so it ends with the hub, even if the hub is
killed.
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

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_NAME = "smollm2-135m-instruct"
# Tokens of one conversation with its answer. A token has at least one byte, so WINDOW_BYTES of text and ANSWER_TOKENS
# always fit. A small window shortens the wait for the first token: one thread reads about 150 tokens/s, so 2 KiB of
# English (500 tokens) take 3 s, and 2 KiB of Chinese (1,400 tokens) 9 s.
CONTEXT_TOKENS = 4096
WINDOW_BYTES = 2048
ANSWER_TOKENS = 256
CONVERSATIONS = 2  # answers at a time; other requests wait in llama.cpp's queue
MODEL_LOAD_SECONDS = 120.0
STABLE_SECONDS = 10.0  # a child that ran for this time is restarted without a pause
MAX_PAUSE_SECONDS = 30.0
DOES_NOT_START = "The local model does not start: see `model.log` in the hub's data folder."

log = structlog.get_logger(__name__)


@attrs.frozen
class ChildEndpoint:
    """The URL of the child, and the key for its requests. Web pages and other users of the machine lack the key."""

    base_url: str
    key: str = attrs.field(repr=False)


def model_path(cache: Path, data: Path) -> Path:
    """Return the path of the model file in the cache folder, or in the data folder if only that one exists.

    Earlier versions stored the model in the data folder.
    """
    path, old_path = (folder / "models" / MODEL_FILE for folder in (cache, data))
    return old_path if old_path.is_file() and not path.is_file() else path


def is_installed(cache: Path, data: Path) -> bool:
    """Return whether both the model file and its engine are installed."""
    return model_path(cache, data).is_file() and importlib.util.find_spec("xllamacpp") is not None


@attrs.define(eq=False, kw_only=True)
class LocalModel:
    """The child process, which is restarted whenever it exits.

    The output of the child goes to `model.log` in the data folder. *users* is the number of agents that use the child.
    """

    cache: Path
    data: Path
    users: int = 0
    pid: int | None = None  # the process id of the child while its model is loaded
    _ready: asyncio.Future[ChildEndpoint] = attrs.field(factory=lambda: asyncio.get_running_loop().create_future())
    _task: asyncio.Task[None] | None = None

    async def endpoint(self) -> ChildEndpoint:
        """Wait until the model is loaded, and return the endpoint of the child.

        Raises AgentError if the child does not start, is stopped, or does not load the model in MODEL_LOAD_SECONDS.
        """
        try:
            async with asyncio.timeout(MODEL_LOAD_SECONDS):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            raise AgentError(
                "The local model is still loading: try again in a moment.", "model_timeout", retryable=True
            ) from None

    def start(self) -> None:
        """Start the child; the model loads in the background. Raises OSError if `model.log` cannot be written."""
        self.data.mkdir(parents=True, exist_ok=True)
        self._log_file.write_bytes(b"")
        self._task = asyncio.create_task(self._keep_alive())

    async def stop(self) -> None:
        """Kill the child, and wait until it has exited."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._fail("The local model was stopped: try again.")

    def _fail(self, message: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(AgentError(message, "model_unreachable", retryable=True))
            self._ready.exception()  # mark it as retrieved: no answer may be waiting

    @property
    def _log_file(self) -> Path:
        return self.data / "model.log"

    async def _keep_alive(self) -> None:
        """Run the child, and restart it when it exits: at once if it ran for STABLE_SECONDS, else with backoff."""
        failures = 0
        while True:
            started_at = time.monotonic()
            code = await self._run_child()
            failures = 0 if time.monotonic() - started_at > STABLE_SECONDS else failures + 1
            pause = min(MAX_PAUSE_SECONDS, 0.25 * 2 ** (failures - 1)) if failures else 0.0
            log.warning(
                "the local model exited; it will be restarted", exit=code, log=str(self._log_file), restart_in=pause
            )
            await asyncio.sleep(pause)
            if self._ready.done():
                self._ready = asyncio.get_running_loop().create_future()

    async def _run_child(self) -> int | None:
        """Run one child until it exits; return its exit code, or None if it could not be started."""
        key = secrets.token_urlsafe()
        try:
            child = self._spawn(key)
        except OSError as error:
            log.warning("the local model cannot be started", reason=str(error))
            self._fail(DOES_NOT_START)
            return None
        log.info("the local model is loading; answers wait for it", model=MODEL_NAME)
        try:
            await self._watch(child, key)
        finally:
            child.kill()
            code = child.wait()  # short: the child was killed
            if child.stdin:
                child.stdin.close()
        return code

    async def _watch(self, child: subprocess.Popen[bytes], key: str) -> None:
        """Read the URL of the child from its stdout. Then wait until the child exits, which closes the pipe."""
        stdout = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stdout), child.stdout
        )
        try:
            line = await stdout.readline()
            if not line.endswith(b"\n"):
                return self._fail(DOES_NOT_START)
            self._ready.set_result(ChildEndpoint(json.loads(line)["base_url"], key))
            self.pid = child.pid
            log.info("the local model is ready", model=MODEL_NAME, pid=child.pid)
            await stdout.read()
            self._ready = asyncio.get_running_loop().create_future()
        finally:
            self.pid = None
            pipe.close()

    def _spawn(self, key: str) -> subprocess.Popen[bytes]:
        # Do not use asyncio: uvloop 0.23 ignores close_fds, so the child would inherit the hub's sockets and lock.
        with self._log_file.open("ab") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", "hub.adapters.local_model", str(model_path(self.cache, self.data))],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                close_fds=True,
                start_new_session=True,  # keeps Ctrl-C from the child: the hub ends its runs first
            )
        if child.stdin:
            with suppress(BrokenPipeError):  # the child has exited: _watch() notices on the other pipe
                child.stdin.write(key.encode() + b"\n")
        return child


_models: dict[Path, LocalModel] = {}


@asynccontextmanager
async def share(cache: Path, data: Path) -> AsyncIterator[LocalModel]:
    """Yield the local model of the *data* folder. The first user starts its child, and the last user stops it."""
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


def run_child(model: Path) -> None:
    """Run the child: read the key, load *model*, write the URL to stdout, and exit when the hub exits."""
    hub_pid = os.getppid()
    url_pipe = os.dup(1)
    os.dup2(2, 1)  # the output of llama.cpp goes to the log file, not to the hub
    key = sys.stdin.readline().strip()
    threading.Thread(target=_exit_with_stdin, daemon=True).start()
    server = _load(model, key)
    os.write(url_pipe, json.dumps({"base_url": f"{server.listening_address}/v1"}).encode() + b"\n")
    while os.getppid() == hub_pid:  # needed if another child of the hub inherited the pipe and holds it open
        time.sleep(1)
    os._exit(0)


def _exit_with_stdin() -> None:
    while sys.stdin.read(1):
        pass
    os._exit(0)


def _load(model: Path, key: str) -> Any:
    xllamacpp = importlib.import_module("xllamacpp")  # installed only by `hubbub model`
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free port
    params.api_keys = [key]
    params.cors_origins = ""  # the default allows every web page
    params.ui = False
    params.endpoint_slots = False  # this endpoint would show the prompts of other users
    params.n_ctx = CONTEXT_TOKENS * CONVERSATIONS
    params.n_parallel = CONVERSATIONS
    params.cache_ram_mib = 0  # the default stores up to 8 GiB of old prompts
    params.cache_idle_slots = False
    # Leave one core free: llama.cpp's threads wait for each other at every step. With 2 threads on 2 cores, one other
    # busy process cut the rate from 94 to 28 tokens/s, and to less than one if llama.cpp had a lower priority. With one
    # thread, it cut the rate to 60 tokens/s.
    threads = max(1, min(4, (os.cpu_count() or 1) - 1))
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cpuparams.poll = params.cpuparams_batch.poll = 0  # do not spin between steps
    params.n_threads_http = 2 * CONVERSATIONS + 4
    params.verbosity = 2  # warnings only: a line for each answer would make the log grow
    return xllamacpp.Server(params)


if __name__ == "__main__":
    run_child(Path(sys.argv[1]))
