"""Sign-in with the Python client: its token, its variables, and sessions that others may not see.

test_clients.py tests what both clients share.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from support.hub import Hub
from support.waiting import PATIENCE

from hub.access.principal import OPERATOR
from hub.client import Closed, Refusal, connect
from hub.client.addresses import is_same_origin, origin_of
from hub.client.reader import QUEUE_TEXT
from hub.client.tokens import TokenSource
from hub.commands import table as commands
from hub.messages import Chunk, RunFinished, UserMessage

FLOOD = f"""
async def flood(message: str):
    for number in range(3 * {QUEUE_TEXT} // 8192):
        yield f"{{number:08d}}" * 1024
"""


@pytest.fixture(autouse=True)
def own_agents(hub: Hub) -> None:
    hub.agent("flood.py", FLOOD)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HUBBUB_KEY", "HUBBUB_URL"):
        monkeypatch.delenv(name, raising=False)


async def test_the_address_and_the_key_come_from_the_environment(signed: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address may be that of the hub's pages, as for the terminal."""
    monkeypatch.setenv("HUBBUB_URL", signed.url)
    monkeypatch.setenv("HUBBUB_KEY", f"{await signed.key('ann')}\n")
    async with connect() as client:
        assert client.welcome is not None and client.welcome.principal.name == "ann"
    async with connect(token=await signed.key("bob")) as client:
        assert client.welcome is not None and client.welcome.principal.name == "bob"


async def test_the_key_of_the_environment_is_for_the_hub_of_the_environment(
    signed: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub at another address gets no key. Without HUBBUB_URL, the key is for every address."""
    monkeypatch.setenv("HUBBUB_KEY", await signed.key("ann"))
    async with connect(signed.url) as client:
        assert client.tokens.current
    monkeypatch.setenv("HUBBUB_URL", "http://127.0.0.1:1")
    with pytest.raises(Closed, match="the hub needs a token"):
        await connect(signed.url).__aenter__()


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("ws://Localhost:9527/api/v1/ws?x=1", "localhost:9527", True),
        ("https://a.example", "wss://name:secret@a.example:443/api/v1/ws", True),
        ("http://[::1]:80", "ws://[::1]", True),
        ("http://a.example", "https://a.example", False),
        ("http://a.example", "http://a.example:8080", False),
        ("http://a.example", "http://a.example.evil", False),
        ("http://a.example", "http://a.example@evil", False),
        ("http://[::1", "http://[::1", False),
    ],
)
def test_an_origin_is_a_scheme_a_host_and_a_port(first: str, second: str, is_same: bool) -> None:
    """A key for one origin reaches no other one."""
    assert is_same_origin(first, second) is is_same
    assert origin_of("http://[::1]:9527/") == "http://[::1]:9527"


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve all paths with *handler*; yield the address."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}"
    finally:
        await runner.cleanup()


async def test_a_redirect_to_another_origin_gets_no_token() -> None:
    """The client follows the redirect, without the header."""
    headers: list[str | None] = []

    async def note(request: web.Request) -> web.Response:
        headers.append(request.headers.get("Authorization"))
        raise web.HTTPNotFound

    async def redirect(request: web.Request) -> web.Response:
        headers.append(request.headers.get("Authorization"))
        raise web.HTTPFound(other)

    async with serving(note) as other, serving(redirect) as first:
        with pytest.raises(Closed):
            await connect(first, token="hk_secret").__aenter__()
    assert headers == ["Bearer hk_secret", None]


@pytest.mark.parametrize(
    "options", [{"url": "ws://name:secret@127.0.0.1:1"}, {"headers": {"authorization": "Basic x"}}]
)
def test_a_token_beside_other_credentials_is_refused(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request has one Authorization. The key of the environment is not used then."""
    with pytest.raises(ValueError, match="sign in already"):
        connect(token="hk_x", **options)  # type: ignore[arg-type]
    monkeypatch.setenv("HUBBUB_KEY", "hk_x")
    assert connect(**options).tokens.token is None  # type: ignore[arg-type]


async def test_a_token_is_in_no_repr_and_no_error(signed: Hub) -> None:
    client = connect(signed.url, token="hk_secret", headers={"X-Other": "secret"})
    with pytest.raises(Closed) as error:
        await client.__aenter__()
    texts = [repr(thing) for thing in (client, client.link, client.tokens, client.files.http, error.value)]
    assert "secret" not in "".join(texts)


async def test_a_plain_function_may_give_the_token(signed: Hub) -> None:
    """It is called once for each connection."""
    calls, key = [], await signed.key("ann")

    def get_token() -> str:
        calls.append(1)
        return key

    async with connect(signed.url, token=get_token) as client:
        session = await client.session("s1", agent="echo")
        assert await session.ask("hello") == "hello "
    assert len(calls) == 1


async def test_a_function_is_asked_again_if_the_hub_refuses_its_token_over_http() -> None:
    """Once: a function that gives the same token again has no other one."""
    tokens = iter(["one", "two", "two"])
    source = TokenSource(lambda: next(tokens))
    await source.renew()
    assert await source.replace("one") and source.headers == {"Authorization": "Bearer two"}
    assert await source.replace("one") and not await source.replace("two")
    with pytest.raises(ConnectionError, match="the token function failed: StopIteration"):
        await source.renew()
    assert not await TokenSource("fixed").replace("fixed")


async def test_a_reader_that_is_behind_reads_the_log_with_the_token(signed: Hub) -> None:
    async with connect(signed.url, token=await signed.key("ann")) as client:
        session = await client.session("s1", agent="flood")
        slow = session.events()
        length = len(await session.ask("go"))
        assert slow.is_behind
        async with asyncio.timeout(PATIENCE):
            text = ""
            while not isinstance(body := (await anext(slow)).body, RunFinished):  # type: ignore[union-attr]
                text += body.content if isinstance(body, Chunk) else ""
        assert len(text) == length


async def test_the_first_chat_makes_a_session_and_its_readers_get_all_of_it(signed: Hub) -> None:
    """Before it, the session looks like one of others. A second principal does not see it afterwards either."""
    async with connect(signed.url, token=await signed.key("ann")) as ann:
        reader = ann.subscribe(session="s1")
        session = await ann.session("s1", agent="echo")
        assert await session.ask("hello") == "hello "
        event = await anext(reader)
        assert (event.seq, type(event.body)) == (1, UserMessage)  # type: ignore[union-attr]
        assert await session.ask("again") == "again "
        async with connect(signed.url, token=await signed.key("bob")) as bob, asyncio.timeout(PATIENCE):
            with pytest.raises(Refusal, match="there is no session s1"):
                await anext(bob.subscribe(session="s1"))
            with pytest.raises(Refusal, match="there is no session s1"):
                await (await bob.session("s1", agent="echo")).ask("hello")


async def test_a_member_who_is_removed_gets_an_error_and_no_event(signed: Hub) -> None:
    """The iteration over the session's events raises it."""
    async with connect(signed.url, token=await signed.key("ann")) as ann:
        async with connect(signed.url, token=await signed.key("bob")) as bob:
            await (await ann.session("s1", agent="echo")).ask("hello")
            assert bob.welcome is not None
            member = bob.welcome.principal.id
            await commands.change_member(signed.door, OPERATOR, "s1", member, "viewer")
            reader = (await bob.session("s1")).events()
            await commands.change_member(signed.door, OPERATOR, "s1", member, None)
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(Refusal, match="there is no session s1"):
                    await anext(reader)
