"""Agents that misbehave, and the end that each answer must have."""

from contextlib import AbstractAsyncContextManager, nullcontext

import aiohttp
import attrs
from support.hub import Client

SILENCE, GRACE = 0.5, 0.3  # the silence limit and the grace time of the test's hub, in seconds
THREAD_SILENCE = 5.0  # the silence limit of a plain function: its thread may begin late beside many others
RUN_BYTES = 512 * 1024  # the limit of one answer


@attrs.frozen
class Bad:
    """The body of an agent, and the expected end of its answer: the stored text, stop reason and error code.

    With *cancel* a client cancels the answer after the first text. A *text* of None accepts any text.
    """

    code: str
    text: str | None = "one "
    reason: str = "error"
    error: str | None = "agent_error"
    cancel: bool = False


FAILED, WRONG, LONG = "agent_error", "agent_bad_output", "answer_too_long"
ASYNC = {  # the body of an `async def NAME(message)`
    "raises": Bad('yield "one "\nraise ValueError("secret")'),
    "raises_at_once": Bad('raise ValueError("secret")\nyield', ""),
    "exits": Bad('yield "one "\nsys.exit(3)'),
    "interrupts": Bad('yield "one "\nraise KeyboardInterrupt'),
    "ends_like_a_generator": Bad('yield "one "\nraise GeneratorExit'),
    "stops_like_an_iterator": Bad('yield "one "\nraise StopAsyncIteration'),
    "raises_no_exception": Bad('yield "one "\nraise type("Odd", (BaseException,), {})()'),
    "raises_what_cannot_be_printed": Bad(
        'yield "one "\n'
        'def fail(self): raise RuntimeError("no words")\n'
        'raise type("Mute", (Exception,), {"__str__": fail, "__repr__": fail})()'
    ),
    "exits_as_its_error_is_printed": Bad(
        'yield "one "\ndef fail(self): sys.exit(3)\nraise type("Mute", (Exception,), {"__str__": fail})()'
    ),
    "says_odd_words_with_its_error": Bad(
        'yield "one "\nraise AgentError("\\ud800\\0" * 9999, "odd", retry_after_ms="soon")', error="odd"
    ),
    "tells_to_wait_for_ever": Bad('yield "one "\nraise AgentError("x", "odd", retry_after_ms=10**30)', error="odd"),
    "tells_to_wait_less_than_nothing": Bad(
        'yield "one "\nraise AgentError("x", "odd", retry_after_ms=-1)', error="odd"
    ),
    "has_an_error_without_a_text": Bad(
        'yield "one "\ndef fail(self): raise RuntimeError("no words")\n'
        'mute = type("Mute", (), {"__str__": fail, "__bool__": fail})()\n'
        "raise AgentError(mute, mute, retryable=mute)"
    ),
    "lies_in_its_error": Bad(
        'yield "one "\nclass Own(str):\n  __str__, encode = lambda self: self, lambda *values, **named: 5\n'
        'raise AgentError(Own("x"), Own("odd"))',
        error="odd",
    ),
    "cancels_itself": Bad('yield "one "\nraise asyncio.CancelledError'),
    "cancels_its_task": Bad('yield "one "\nasyncio.current_task().cancel()\nawait asyncio.sleep(3600)'),
    "recurses": Bad('yield "one "\ndef down(): down()\ndown()'),
    "runs_out_of_memory": Bad('yield "one "\nraise MemoryError'),
    "hangs": Bad('yield "one "\nawait asyncio.Event().wait()', reason="timeout", error=None),
    "hangs_until_cancelled": Bad(
        'yield "one "\nawait asyncio.Event().wait()', reason="cancelled", error=None, cancel=True
    ),
    "ignores_every_cancel": Bad(
        'yield "one "\nwhile True:\n  try: await asyncio.sleep(3600)\n  except BaseException: pass',
        reason="cancelled",
        error=None,
        cancel=True,
    ),
    "speaks_when_cancelled": Bad(
        'yield "one "\ntry: await asyncio.sleep(3600)\nexcept asyncio.CancelledError:\n'
        '  while True: yield "no"; await asyncio.sleep(0)',
        text=None,
        reason="cancelled",
        error=None,
        cancel=True,
    ),
    "raises_when_cancelled": Bad(
        'yield "one "\ntry: await asyncio.sleep(3600)\nfinally: raise ValueError("no")',
        reason="cancelled",
        error=None,
        cancel=True,
    ),
    "will_not_be_closed": Bad('try: yield "one "; yield 5\nexcept GeneratorExit:\n  yield "no"', error=WRONG),
    "floods": Bad('while True: yield "x" * 10_000', None, error=LONG),
    "floods_in_drops": Bad('while True: yield "x"', None, error=LONG),
    "says_it_all_at_once": Bad('yield "one "\nyield "x" * 10**7', error=LONG),
    "says_nothing_for_ever": Bad(
        'yield "one "\nwhile True:\n  yield ""\n  await asyncio.sleep(0)', reason="cancelled", error=None, cancel=True
    ),
    "yields_a_number": Bad('yield "one "\nyield 5', error=WRONG),
    "yields_none": Bad('yield "one "\nyield None', reason="end_turn", error=None),
    "yields_bytes": Bad('yield "one "\nyield b"two"', error=WRONG),
    "yields_half_a_character": Bad('yield "one "\nyield "\\ud83c"', error=WRONG),
    "yields_a_text_that_lies": Bad(
        "class Own(str):\n  __str__, isascii, __len__ = lambda self: self, lambda self: True, lambda self: -1\n"
        'yield Own("one ")',
        "one ",
        "end_turn",
        None,
    ),
    "gives_a_message_that_lies": Bad(
        'yield Message(type("Own", (str,), {"encode": lambda self: b"\\xff"})("one "))', "one ", "end_turn", None
    ),
    "yields_a_text_that_fails": Bad(
        'def fail(*values): raise RuntimeError("no words")\n'
        'yield "one "\nyield type("Own", (str,), {"__str__": fail, "__bool__": fail})("two")',
        "one two",
        "end_turn",
        None,
    ),
    "gives_a_run_that_fails": Bad(
        'yield "one "\nyield type("Own", (Finish,), {"usage": property(lambda self: 1 / 0)})()'
    ),
    "yields_a_kind_of_its_own": Bad(
        'yield "one "\nyield type("Own", (Custom,), {"type": "run_finished"})("x", 1)', error=WRONG
    ),
    "yields_an_event_of_the_wrong_types": Bad('yield "one "\nyield Custom(5, 6)', error=WRONG),
    "keeps_rubbish": Bad('yield "one "\nawait run.keep(5, None, "text")'),
    "asks_rubbish": Bad('yield "one "\nawait run.ask(5, schema={1: object()})', error=WRONG),
    "yields_a_coroutine": Bad('yield "one "\nyield asyncio.sleep(0)', error=WRONG),
    "yields_a_run_event": Bad('yield "one "\nyield RunFinished("m", "end_turn")', error=WRONG),
    "yields_what_is_no_json": Bad('yield "one "\nyield Custom("x", {"a": object()})', error=WRONG),
    "yields_not_a_number": Bad('yield "one "\nyield Custom("x", float("nan"))', reason="end_turn", error=None),
    "yields_a_circle": Bad('yield "one "\na = []\na.append(a)\nyield Custom("x", a)', error=WRONG),
    "yields_a_well": Bad('yield "one "\na = []\nfor _ in range(10**5): a = [a]\nyield Custom("x", a)', error=WRONG),
    "yields_a_large_event": Bad('yield "one "\nyield Custom("x", "x" * 10**6)', error=LONG),
    "yields_a_false_end": Bad('yield "one "\nyield Finish("aborted")', error=WRONG),
    "yields_a_message_of_numbers": Bad('yield "one "\nyield Message(5)', error=WRONG),
    "counts_more_than_there_is": Bad('yield "one "\nyield Finish(usage=Usage(10**30, 1))', error=WRONG),
    "counts_less_than_nothing": Bad('yield "one "\nyield Finish(usage=Usage(-(10**30), 1))', error=WRONG),
    "goes_on_after_its_end": Bad('yield Finish("max_tokens")\nyield "one "', reason="max_tokens", error=None),
    "leaks_tasks": Bad(
        "async def leak():\n  while True: await asyncio.sleep(0.001)\n"
        'tasks.extend(asyncio.create_task(leak()) for _ in range(100))\nyield "one "',
        reason="end_turn",
        error=None,
    ),
    "leaks_a_failing_task": Bad(
        'async def fail(): raise ValueError("nobody")\nasyncio.create_task(fail())\n'
        'await asyncio.sleep(0)\nyield "one "',
        reason="end_turn",
        error=None,
    ),
    "asks_as_it_ends": Bad(
        'yield "one "\ntasks.append(asyncio.create_task(run.ask("?")))', reason="end_turn", error=None
    ),
    "keeps_after_its_end": Bad(
        'async def late():\n  await asyncio.sleep(0.05)\n  await run.keep("a.txt", "text/plain", b"late")\n'
        'tasks.append(asyncio.create_task(late()))\nyield "one "',
        reason="end_turn",
        error=None,
    ),
    "calls_itself": Bad('yield "one "\nyield await run.call("calls_itself", "x")', error="call_depth"),
    "calls_nobody": Bad('yield "one "\nyield await run.call("no such agent", "x")', error="unknown_agent"),
    "changes_its_run": Bad('yield "one "\nrun.message = "x"'),
    "prints": Bad('print("x" * 1000)\nprint("x", file=sys.stderr)\nyield "one "', reason="end_turn", error=None),
    "blocks_the_loop": Bad('yield "one "\ntime.sleep(1.6)\nyield "two"', "one two", "end_turn", None),
}
PLAIN = {  # of a `def NAME(message)`, which runs in a thread
    "thread_raises": Bad('yield "one "\nraise ValueError("secret")'),
    "thread_exits": Bad('yield "one "\nsys.exit(3)'),
    "thread_returns_a_number": Bad("return 5", "", error=WRONG),
    "thread_returns_rubbish": Bad('return ["one ", {}]', error=WRONG),
    "thread_floods": Bad('while True: yield "x" * 10_000', None, error=LONG),
    "thread_hangs": Bad('yield "one "\nwhile True: time.sleep(0.05)', reason="timeout", error=None),
    "thread_stops_late": Bad('yield "one "\ntime.sleep(20)\nyield "two"', reason="cancelled", error=None, cancel=True),
}
HEAD = """
import asyncio, sys, time
from hub import AgentError, Custom, Finish, Message, Run, Usage, agent
from hub.messages import RunFinished
tasks = []

"""


def files() -> dict[str, str]:
    """Return the source of each agent file, by the agent's name."""
    heads = {"async def": ASYNC, "def": PLAIN}
    return {name: _file(head, name, bad) for head, agents in heads.items() for name, bad in agents.items()}


def _file(head: str, name: str, bad: Bad) -> str:
    silence = THREAD_SILENCE if name in PLAIN else SILENCE
    mark = f"@agent(silence_limit={silence})\n" if bad.reason == "timeout" else ""
    body = "".join(f"    {line}\n" for line in bad.code.splitlines())
    return f"{HEAD}{mark}{head} {name}(message: str, run: Run):\n{body}"


async def connect(http: aiohttp.ClientSession, url: str, session: str) -> Client:
    client = Client(http, await http.ws_connect(f"{url}/api/v1/ws", protocols=("hubbub.v1",), max_msg_size=0))
    await client.send(type="subscribe", sessionId=session, afterSeq=0)
    await client.until_type("subscribed")
    return client


async def provoke(
    http: aiohttp.ClientSession, url: str, name: str, bad: Bad, slot: AbstractAsyncContextManager[None] = nullcontext()
) -> None:
    """Enter *slot*, let a bad agent answer, and check the end; then another agent must answer in the session."""
    async with slot:
        await _provoke(await connect(http, url, name), name, bad)


async def _provoke(client: Client, name: str, bad: Bad) -> None:
    await client.send(type="chat", agentId=name, sessionId=name, message="go")
    run = (await client.find(lambda frame: frame["type"] == "accepted"))["runId"]
    if bad.cancel:
        await client.find(lambda frame: frame["type"] == "stream")
        await client.send(type="cancel", sessionId=name)
    end = await client.find(lambda frame: frame["type"] == "run_finished")
    errors = [frame["code"] for frame in client.frames if frame["type"] == "run_error"]
    text = client.text(run)
    assert (end["stopReason"], errors) == (bad.reason, [bad.error] if bad.error else []), (name, client.frames[-3:])
    assert text == bad.text if bad.text is not None else len(text) <= RUN_BYTES, (name, text[:100])
    assert "secret" not in str(client.frames), name
    await client.send(type="chat", agentId="echo", sessionId=name, message="next")
    await client.until(lambda frame: frame["type"] == "run_finished" and frame["runId"] != run)
    assert client.text(client.frames[-1]["runId"]) == "next "
    await client.ws.close()
