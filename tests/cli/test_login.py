"""`hubbub login`, and the keys that the commands of the terminal send."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from aiohttp import web
from support.documents import ROOT
from support.hub import Hub
from support.terminal import CTRL_D, ENTER, terminal
from support.waiting import PATIENCE

from hub.access.principal import OPERATOR
from hub.commands import table as commands


@attrs.frozen
class Done:
    code: int
    out: str
    err: str


@attrs.define
class Shell:
    """Runs hubbub commands in a pipe, with a configuration folder of its own."""

    folder: Path
    variables: dict[str, str] = attrs.Factory(dict)

    @property
    def keys(self) -> Path:
        return self.folder / "hubbub" / "keys"

    async def run(self, *arguments: str, text: str = "") -> Done:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HUBBUB_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hub", *arguments),
            cwd=self.folder,
            env=kept | {"PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(self.folder)} | self.variables,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(text.encode())
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "home"
    folder.mkdir()
    return Shell(folder)


@asynccontextmanager
async def recording(headers: list[str | None], location: str | None = None) -> AsyncIterator[str]:
    """Serve all paths of another origin, and record the header Authorization of each request."""

    async def handler(request: web.Request) -> web.Response:
        headers.append(request.headers.get("Authorization"))
        if location is not None:
            raise web.HTTPFound(location + request.path)
        return web.json_response({"error": "sign in first", "code": "unauthenticated"}, status=401)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}"
    finally:
        await runner.cleanup()


async def test_a_key_is_kept_until_logout(signed: Hub, shell: Shell) -> None:
    """Only this account can read it. Without a key, each command says how to sign in."""
    for command in (("sessions",), ("tail", "s1"), ("export", "s1"), ("chat",)):
        done = await shell.run(*command, "--url", signed.url, text="hello")
        assert done.code == 1
        assert done.err == f"hubbub: {signed.url} needs a key: sign in with: hubbub login {signed.url}\n"
    done = await shell.run("login", signed.url, text=f"{await signed.key('ann')}\n")
    (path,) = shell.keys.iterdir()
    assert done == Done(0, f"you are ann (member) at {signed.url}; the key is in {path}\n", "")
    assert (path.stat().st_mode & 0o777, shell.keys.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (await shell.run("chat", "echo", "--session", "s1", "--url", signed.url, text="hello")).out == "hello \n"
    assert "### ann\n\nhello" in (await shell.run("export", "s1", "--url", signed.url)).out
    assert "s1" in (await shell.run("sessions", "--url", signed.url)).out
    done = await shell.run("logout", signed.url)
    assert done.code == 0 and "forgotten" in done.out and not path.exists()
    assert (await shell.run("sessions", "--url", signed.url)).code == 1
    assert (await shell.run("logout", signed.url)).err == f"hubbub: no key of {signed.url} is kept\n"


async def test_a_key_that_the_hub_refuses_is_not_kept(signed: Hub, hub: Hub, shell: Shell) -> None:
    """Nor is a text that is no key, nor a key for a hub without sign-in. An earlier key stays."""
    key = await signed.key("ann")
    await shell.run("login", signed.url, text=key)
    for text, error in (("hk_wrong", "wrong, expired or revoked"), ("", "that is no key"), ("a\nb", "that is no key")):
        done = await shell.run("login", signed.url, text=text)
        assert done.code == 1 and error in done.err and done.err.count("\n") == 1
    assert [path.read_text() for path in shell.keys.iterdir()] == [f"{key}\n"]
    await shell.run("logout", signed.url)
    async with recording([]) as other:
        assert "does not accept the key" in (await shell.run("login", other, text=key)).err
    assert not list(shell.keys.iterdir())


async def test_a_hub_without_sign_in_needs_no_key(hub: Hub, shell: Shell) -> None:
    await hub.start()
    done = await shell.run("login", hub.url, text="hk_any")
    assert (done.code, done.err) == (1, f"hubbub: {hub.url} needs no key, because its sign-in is off\n")


@pytest.mark.parametrize("url", ["http://name:secret@localhost:1", "http://[::1", "http://"])
async def test_login_refuses_an_address_that_cannot_have_a_key(shell: Shell, url: str) -> None:
    """The error shows no password."""
    for command in ("login", "logout"):
        done = await shell.run(command, url, text="hk_any")
        assert done.code == 1 and done.err.count("\n") == 1 and "secret" not in done.err


async def test_the_key_is_typed_without_an_echo(signed: Hub, shell: Shell) -> None:
    """At a terminal, a prompt asks for it."""
    key = await signed.key("ann")
    async with terminal(shell.folder, "login", signed.url) as screen:
        await screen.until("Key:")
        screen.type(key + ENTER)
        await screen.until("you are ann (member)")
        assert await screen.wait_until_ended() == 0
        assert key.encode() not in screen.raw
    assert [path.read_text() for path in shell.keys.iterdir()] == [f"{key}\n"]


async def test_the_key_of_the_environment_comes_first(signed: Hub, shell: Shell) -> None:
    """A wrong one is an error that names the variable."""
    await shell.run("login", signed.url, text=await signed.key("ann"))
    shell.variables["HUBBUB_KEY"] = await signed.key("bob")
    await shell.run("chat", "echo", "--session", "s1", "--url", signed.url, text="hello")
    assert "### bob" in (await shell.run("export", "s1", "--url", signed.url)).out
    shell.variables["HUBBUB_KEY"] = "wrong"
    done = await shell.run("sessions", "--url", signed.url)
    assert done.code == 1 and "does not accept the key in HUBBUB_KEY" in done.err


async def test_a_key_is_never_sent_to_another_origin(signed: Hub, shell: Shell) -> None:
    """Neither the kept key, nor that of HUBBUB_KEY if HUBBUB_URL names another hub; also not after a redirect."""
    await shell.run("login", signed.url, text=await signed.key("ann"))
    headers: list[str | None] = []
    async with recording(headers) as other:
        for command in (("sessions",), ("tail", "s1"), ("chat",)):
            assert (await shell.run(*command, "--url", other, text="hello")).code == 1
        shell.variables |= {"HUBBUB_URL": signed.url, "HUBBUB_KEY": "hk_secret"}
        assert (await shell.run("sessions", "--url", other)).code == 1
        assert headers and set(headers) == {None}
        shell.variables.clear()
        first_headers: list[str | None] = []
        async with recording(first_headers, other) as first:
            done = await shell.run("login", first, text="hk_secret")
        assert first_headers == ["Bearer hk_secret"] and set(headers) == {None}
        assert done.err == f"hubbub: {other} needs a key: sign in with: hubbub login {other}\n"


async def test_keys_are_kept_for_each_origin(signed: Hub, tmp_path: Path, shell: Shell) -> None:
    """Another port is another origin."""
    (tmp_path / "second").mkdir()
    second = await Hub(tmp_path / "second", options={"sign_in": True}).start()
    try:
        for hub, name in ((signed, "ann"), (second, "bob")):
            assert (await shell.run("login", f"127.0.0.1:{hub.port}", text=await hub.key(name))).code == 0
            await shell.run("chat", "echo", "--session", "s1", "--url", hub.url, text="hello")
        assert "### ann" in (await shell.run("export", "s1", "--url", signed.url)).out
        assert "### bob" in (await shell.run("export", "s1", "--url", second.url)).out
    finally:
        await second.stop()


async def test_a_folder_that_cannot_be_used_is_one_line(signed: Hub, shell: Shell) -> None:
    """It says which folder, and what to do instead."""
    (shell.folder / "hubbub").mkdir()
    shell.keys.write_text("")
    done = await shell.run("login", signed.url, text=await signed.key("ann"))
    assert done.code == 1 and str(shell.keys) in done.err and "HUBBUB_KEY" in done.err and done.err.count("\n") == 1


async def test_a_chat_shows_the_names_of_other_people(signed: Hub, shell: Shell) -> None:
    """The first message makes the session; then a link invites others. The own messages have the prompt."""
    await shell.run("login", signed.url, text=await signed.key("ann"))
    bob = await signed.connect(headers={"Authorization": f"Bearer {await signed.key('bob')}"}, extended=True)
    bob_id = (await bob.find(lambda frame: frame["type"] == "welcome"))["principal"]["id"]
    async with terminal(shell.folder, "chat", "echo", "--session", "s1", "--url", signed.url) as screen:
        await screen.until("you>")
        screen.type("hello" + ENTER)
        await screen.until("echo:", "you>", after="you> hello")
        screen.type("/share" + ENTER)
        await screen.until("whoever opens this link", "/sign-in#hs_", after="/share")
        await commands.change_member(signed.door, OPERATOR, "s1", bob_id, "member")
        await bob.send(type="chat", agentId="echo", sessionId="s1", message="good morning")
        text = await screen.until("bob> good morning", "good morning")
        assert "ann>" not in text
        screen.type("/history" + ENTER)
        await screen.until("ann:", "bob:", after="/history")
        screen.type(CTRL_D)
        assert await screen.wait_until_ended() == 0


async def test_a_key_that_is_revoked_ends_the_chat(signed: Hub, shell: Shell) -> None:
    """The error says how to sign in again."""
    key = await signed.key("ann")
    await shell.run("login", signed.url, text=key)
    async with terminal(shell.folder, "chat", "echo", "--url", signed.url) as screen:
        await screen.until("you>")
        await commands.revoke_credential(signed.door, OPERATOR, key.split("_")[1])
        screen.type("hello" + ENTER)
        await screen.until("does not accept the key: sign in with: hubbub login")
        assert await screen.wait_until_ended() == 1
