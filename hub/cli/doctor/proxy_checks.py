"""Send probes through the proxy in front of the hub, and compare what arrives."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import attrs
from yarl import URL

from hub.access.probes import ProbeReport
from hub.cli.doctor.echo_client import (
    PROTOCOL,
    EchoClient,
    ProbeFailed,
    name_servers,
    open_echo_client,
)
from hub.cli.doctor.findings import Finding
from hub.cli.doctor.proxy_lines import (
    CLIENT_ADDRESS,
    LONG_SOCKETS,
    SCHEME,
    UNBUFFERED,
    UNBUFFERED_BODIES,
    UNCOMPRESSED,
    UPGRADE,
    allow_bodies,
    drop_header,
    find_proxy,
    pass_header,
    pass_requests,
    set_user,
)
from hub.cli.doctor.request_checks import CLIENT_HEADERS, check_answer
from hub.cli.doctor.way import Way
from hub.limits import MiB, format_size
from hub.settings import Settings

FORGED_ADDRESS, FORGED_HOST, FORGED_USER = "192.0.2.66", "forged.invalid", "hubbub-doctor-forgery"  # RFC 5737, 2606
SIGN_IN_STATUSES = (301, 302, 303, 307, 308, 401, 403)
MIN_PAUSE_SECONDS = 0.5  # at the hub; the upload pauses longer (UPLOAD_PAUSE_SECONDS)


def check_proxy(settings: Settings, url: URL) -> Iterator[Finding]:
    """Send probes to the public address *url*. Raises CommandFailed if no hub runs on the data folder."""
    yield from asyncio.run(_collect_findings(settings, url))


async def _collect_findings(settings: Settings, url: URL) -> list[Finding]:
    async with open_echo_client(settings, url) as client:
        return [finding async for finding in _examine_way(client)]


async def _examine_way(client: EchoClient) -> AsyncIterator[Finding]:
    """Yield the findings. While the hub refuses the probes, streams and uploads cannot be tested."""
    headers = {name: value for name, (value, _) in CLIENT_HEADERS.items()} | {"Origin": client.origin}
    try:
        answer = await client.get(headers)
    except ProbeFailed as error:
        yield _describe_failure(Way(client, find_proxy(error.server), is_direct=False), error)
        return
    is_direct = answer.report.peerPort in client.own_ports
    way = Way(client, find_proxy(name_servers(answer.headers)), is_direct)
    for finding in check_answer(way, answer):
        yield finding
    for name, step in _list_steps(way, answer.report):
        try:
            for finding in await step(way):
                yield finding
        except ProbeFailed as error:
            yield Finding("wrong", f"{name} through {client.url}: {error}")


def _list_steps(way: Way, report: ProbeReport) -> "Iterator[tuple[str, Step]]":
    """Yield the steps that can tell more than the first probe. The hub has no streams over HTTP/1.0."""
    for name, step in STEPS.items():
        is_refused = report.refusal is not None and step in (check_stream, check_upload)
        is_known = way.is_direct and step is check_forgery or report.version == "1.0" and step is check_stream
        if not is_refused and not is_known:
            yield name, step


def _describe_failure(way: Way, error: ProbeFailed) -> Finding:
    """Return the finding for a way on which nothing reaches the hub."""
    text = f"{way.url}: {error}"
    if error.status is None:
        return Finding("wrong", text)
    if error.status in SIGN_IN_STATUSES:
        path = way.client.echo_url.path
        remedy = f"try the address of the redirect, or let the proxy pass on {path} without sign-in"
        return Finding("wrong", text, remedy)
    if not way.path and way.settings.base_path:
        text = f"{text}. base_path is {way.settings.base_path}, so the hub is at another address"
        return Finding("wrong", text, f"hubbub doctor --url {way.client.origin}{way.settings.base_path}")
    if error.status == 404 and way.path != way.settings.base_path:
        return Finding("wrong", text, f'base_path = "{way.path}"')
    return way.wrong(text, pass_requests(way.settings.port))


async def check_forgery(way: Way) -> list[Finding]:
    """Send headers that only proxies may write. A proxy may pass one on if it appends a value of its own."""
    user_header, scheme = way.settings.user_header, {"http": "https", "https": "http"}[way.url.scheme]
    forgeries = {
        "X-Forwarded-For": (FORGED_ADDRESS, "claim any address", CLIENT_ADDRESS),
        "X-Forwarded-Proto": (scheme, "claim any scheme", SCHEME),
        "X-Forwarded-Host": (FORGED_HOST, "claim any Host", drop_header("X-Forwarded-Host")),
        "Forwarded": (f"for={FORGED_ADDRESS}", "hide its address", drop_header("Forwarded")),
    }
    if user_header is not None:
        forgeries[user_header] = (FORGED_USER, "sign in as any user", set_user(user_header))
    answer = await way.client.get({name: value for name, (value, *_) in forgeries.items()})
    findings = []
    for name, (value, effect, lines) in forgeries.items():
        if answer.report.get_header(name).rpartition(",")[2].strip() == value:
            text = f"a client can {effect}: the proxy passes on the {name} of clients"
            findings.append(way.wrong(text, lines))
    return findings or [Finding("ok", "clients cannot claim the address of another, or sign in as another user")]


async def check_socket(way: Way) -> list[Finding]:
    answer = await way.client.open_socket()
    if answer.report is not None and answer.report.get_header("Upgrade").lower() != "websocket":
        return [way.wrong("the header Upgrade does not arrive, so no WebSocket opens", UPGRADE)]
    if answer.report is not None and answer.report.refusal is not None:
        return []  # the first request was refused, too
    if answer.failure:
        return [way.wrong(f"no WebSocket opens through {way.url}: {answer.failure}", UPGRADE)]
    findings = []
    if answer.protocol != PROTOCOL:
        text = "the header Sec-WebSocket-Protocol is lost in the request or in the response: clients fail"
        findings.append(way.wrong(text, pass_header("Sec-WebSocket-Protocol")))
    if not answer.is_echoed:
        findings.append(way.wrong("a WebSocket is closed before its first message comes back", LONG_SOCKETS))
    return findings or [Finding("ok", f"WebSockets open, with the protocol {PROTOCOL}, and messages arrive")]


async def check_stream(way: Way) -> list[Finding]:
    answer = await way.client.stream()
    findings = []
    if not answer.is_live:
        text = "streams (server-sent events) are buffered: the text of an answer arrives at its end"
        findings.append(way.wrong(text, UNBUFFERED))
    if answer.encoding:
        text = f"the proxy compresses streams ({answer.encoding}), which delays their events"
        findings.append(attrs.evolve(way.wrong(text, UNCOMPRESSED), level="advice" if answer.is_live else "wrong"))
    return findings or [Finding("ok", "streams (server-sent events) arrive at once")]


async def check_upload(way: Way) -> list[Finding]:
    """Send the largest upload, and if it does not arrive, the largest message."""
    limits = way.settings.limits
    size = format_size(limits.file_bytes)
    try:
        seconds = await _send_body(way, limits.file_bytes)
    except ProbeFailed as error:
        text = f"an upload of {size} does not arrive (file_bytes): {error}"
        try:
            await _send_body(way, limits.chat_bytes)
        except ProbeFailed:
            text = f"neither an upload of {size} nor a message of {format_size(limits.chat_bytes)} arrives: {error}"
        return [way.wrong(text, allow_bodies(limits.file_bytes // MiB + 1))]
    if seconds < MIN_PAUSE_SECONDS:
        text = f"an upload of {size} arrives, but the proxy stores it first: its disk needs this space"
        return [Finding("ok", text, UNBUFFERED_BODIES.to_remedy(way.proxy))]
    return [Finding("ok", f"an upload of {size} arrives")]


async def _send_body(way: Way, size: int) -> float:
    """Send a body, and return how long it took at the hub. Raises ProbeFailed."""
    answer = await way.client.upload(size)
    if answer.bytes != size:
        raise ProbeFailed(f"{answer.bytes} bytes of {size} arrive")
    return answer.seconds


Step = Callable[[Way], Awaitable[list[Finding]]]
STEPS: dict[str, Step] = {
    "a request with forged headers": check_forgery,
    "a WebSocket": check_socket,
    "a stream": check_stream,
    "an upload": check_upload,
}
