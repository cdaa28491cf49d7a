"""Wait for the first frames of a WebSocket whose client has not signed in yet."""

import asyncio

from hub.commands import table as commands
from hub.commands.client import ClientHandle
from hub.commands.intake import build_error
from hub.errors import BadFrame, SignInTimeout, TooLarge, Unauthenticated
from hub.limits import format_size
from hub.messages import Auth, Hello
from hub.web.frames import SocketReader

MAX_WRONG_FRAMES = 10


async def wait_for_sign_in(client: ClientHandle, reader: SocketReader) -> bool:
    """Read frames until `auth` or `hello` signs the client in, or the socket is closed.

    Return True after an `auth`: the client still waits for its `welcome`, the answer to a `hello`. Any other
    frame gets the error `unauthenticated`. Raises SignInTimeout after `auth_seconds`, Unauthenticated for a wrong token
    or too many other frames, and TooLarge for a frame of more than `auth_frame_bytes`.
    """
    try:
        async with asyncio.timeout(client.hub.limits.auth_seconds):
            for _ in range(MAX_WRONG_FRAMES):
                data = await reader.next()
                if data is None:
                    return False
                kind = await _read_frame(client, data)
                if client.principal.is_signed_in:
                    return kind is Auth
    except TimeoutError:
        raise SignInTimeout() from None
    raise Unauthenticated()


async def _read_frame(client: ClientHandle, data: bytes) -> type[object] | None:
    """Sign the client in if the frame is an `auth`, or a `hello` with a token. Return the type of the command."""
    limits = client.hub.limits
    if len(data) > limits.auth_frame_bytes:
        size = format_size(limits.auth_frame_bytes)
        raise TooLarge(f"before the sign-in, a frame has at most {size}: send auth first")
    try:
        command = client.parse(data)
    except BadFrame as refusal:
        client.answer(build_error(refusal))
        return None
    if isinstance(command, Auth):
        await commands.auth(client.hub, client.principal, command, client)
    elif isinstance(command, Hello) and command.token is not None:
        await commands.hello(client.hub, client.principal, command, client)
    else:
        client.answer(build_error(Unauthenticated(), command.ref))
    return type(command)
