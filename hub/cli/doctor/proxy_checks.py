"""Send requests through the proxy in front of the hub, and compare what arrives."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime

import attrs

from hub.access.proxies import PROXY_HEADERS, is_trusted_proxy
from hub.cli.doctor.echo_client import PROTOCOL, Arrived, EchoClient, ProbeFailed, open_echo_client, parse_address
from hub.cli.doctor.findings import Finding
from hub.cli.failures import CommandFailed
from hub.limits import format_size
from hub.settings import Settings

FORGED_ADDRESS, FORGED_USER = "192.0.2.66", "hubbub-doctor-forgery"  # RFC 5737: nobody has this address
MAX_CLOCK_DIFFERENCE = 60.0
# Headers of clients that must arrive unchanged: the value that is sent, and what does not work without it.
CLIENT_HEADERS = {
    "Authorization": ("Bearer hubbub-doctor", "programs cannot sign in with their keys"),
    "Cookie": ("hubbub-echo=1", "browsers cannot stay signed in"),
    "Last-Event-ID": ("hubbub:1", "streams cannot resume"),
}
NGINX_HTTP = "in nginx: proxy_http_version 1.1;"
NGINX_UPGRADE = (
    'in nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
)
NGINX_FORWARDED = 'in nginx: proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header Forwarded "";'


def check_proxy(settings: Settings, url: str) -> Iterator[Finding]:
    """Send requests to the public address *url*. A hub must run on the data folder."""
    try:
        findings = asyncio.run(_probe(settings, url))
    except CommandFailed as error:
        findings = [Finding("wrong", str(error))]
    yield from findings


async def _probe(settings: Settings, url: str) -> list[Finding]:
    async with open_echo_client(settings, parse_address(url)) as client:
        return [finding async for finding in _Probe(client).run()]


@attrs.frozen
class _Probe:
    client: EchoClient

    @property
    def settings(self) -> Settings:
        return self.client.settings

    async def run(self) -> AsyncIterator[Finding]:
        headers = {name: value for name, (value, _) in CLIENT_HEADERS.items()} | {"Origin": self.client.origin}
        try:
            report = await self.client.get(headers)
        except ProbeFailed as error:
            yield Finding("wrong", f"{self.client.url}: {error}", "let the proxy pass requests on to the hub's port")
            return
        if report.is_direct:
            yield Finding("ok", f"{self.client.url} is the hub itself, without a proxy")
        for check in (self._check_request, self._check_headers, self._check_client, self._check_response):
            for finding in check(report):
                yield finding
        steps = (self._check_forgery, self._check_stream, self._check_socket, self._check_upload)
        for step in steps[report.is_direct :]:
            try:
                for finding in await step():
                    yield finding
            except ProbeFailed as error:
                yield Finding("wrong", f"{_NAMES[step.__name__]} through {self.client.url}: {error}")

    # --- one request ------------------------------------------------------------------------------------------------

    def _check_request(self, report: Arrived) -> Iterator[Finding]:
        url = self.client.url
        if report.refusal is not None:
            yield Finding("wrong", f"the hub refuses requests that come through {url}: {report.refusal}")
        if report.version != "1.1":
            text = f"requests arrive as HTTP/{report.version}: WebSockets and streams need HTTP/1.1"
            yield Finding("wrong", text, NGINX_HTTP)
        expectation = url.authority if url.explicit_port else url.host
        if report.host != expectation:
            text = f"the Host {expectation} arrives as {report.host}: cookies, links and pages of the hub need it"
            yield Finding("wrong", text, "in nginx: proxy_set_header Host $http_host;")
        path = (url / "api/v1/echo").path
        if report.path != path:
            yield Finding("advice", f"the path {path} arrives as {report.path}")

    def _check_headers(self, report: Arrived) -> Iterator[Finding]:
        changes = []
        for name, (value, consequence) in CLIENT_HEADERS.items():
            if report.get_header(name) != value:
                changes.append(name)
                yield Finding("wrong", f"the header {name} does not arrive unchanged: {consequence}")
        if report.get_header("Origin") != self.client.origin:
            changes.append("Origin")
            arrival = report.get_header("Origin") or "nothing"
            yield Finding("wrong", f"the Origin {self.client.origin} arrives as {arrival}: browsers cannot sign in")
        new_names = [name for name in report.headers if name.startswith(("x-", "forwarded", "via"))]
        if not changes:
            addition = f"; the proxy adds {', '.join(new_names)}" if new_names else ""
            yield Finding("ok", f"{', '.join(CLIENT_HEADERS)} and Origin arrive unchanged{addition}")

    def _check_client(self, report: Arrived) -> Iterator[Finding]:
        """Check whom the hub takes for the client: its scheme and its address."""
        is_trusted = is_trusted_proxy(report.peer, self.settings.trusted_proxies)
        is_through_proxy = any(report.get_header(name) for name in PROXY_HEADERS)
        trust = f'trusted_proxies = ["{report.peer}"]'
        if report.scheme != self.client.url.scheme:
            text = f"requests over {self.client.url.scheme} look like {report.scheme}, so browsers cannot sign in"
            remedy = "in nginx: proxy_set_header X-Forwarded-Proto $scheme;" if is_trusted else trust
            yield Finding("wrong", text, remedy)
        if is_through_proxy and not is_trusted:
            text = f"the proxy {report.peer} is not trusted: all clients have its address, and share its limits"
            yield Finding("wrong", text, trust)
        elif is_trusted and not is_through_proxy and not report.is_direct:
            text = f"the proxy {report.peer} does not name the address of its clients, so they share its limits"
            yield Finding("wrong", text, NGINX_FORWARDED)
        else:
            yield Finding("ok", f"the client is {report.address}, over {report.scheme}, at {report.host}")

    def _check_response(self, report: Arrived) -> Iterator[Finding]:
        headers = report.response_headers
        if headers.get("X-Hubbub-Echo") != "1" or "hubbub-echo=1" not in headers.get("Set-Cookie", ""):
            yield Finding("wrong", "headers of the hub's responses are lost: the proxy removes them")
        try:
            difference = parsedate_to_datetime(headers.get("Date", "")).timestamp() - time.time()
        except (TypeError, ValueError):
            return
        if abs(difference) > MAX_CLOCK_DIFFERENCE:
            text = f"the clock of the proxy and the clock here differ by {abs(difference):.0f} s"
            yield Finding("advice", text, "timedatectl set-ntp true, on both")

    # --- more requests ----------------------------------------------------------------------------------------------

    async def _check_forgery(self) -> list[Finding]:
        """Send what only proxies may say."""
        findings = []
        headers = {"X-Forwarded-For": FORGED_ADDRESS}
        if self.settings.user_header is not None:
            headers[self.settings.user_header] = FORGED_USER
        report = await self.client.get(headers)
        if report.address == FORGED_ADDRESS:
            text = "a client can claim any address: the proxy passes on the X-Forwarded-For of clients"
            findings.append(Finding("wrong", text, NGINX_FORWARDED))
        if self.settings.user_header is not None and FORGED_USER in report.get_header(self.settings.user_header):
            text = f"a client can sign in as any user: the proxy passes on the {self.settings.user_header} of clients"
            remedy = f"in nginx: proxy_set_header {self.settings.user_header} $remote_user;"
            findings.append(Finding("wrong", text, remedy))
        honest = await self.client.get({})
        report = await self.client.get({"Forwarded": f"for={FORGED_ADDRESS}"})
        if report.address != honest.address:
            text = f"a client can hide its address (as {report.address}): the proxy passes on the Forwarded of clients"
            findings.append(Finding("wrong", text, NGINX_FORWARDED))
        return findings or [Finding("ok", "a client cannot claim the address of another, or be another user")]

    async def _check_stream(self) -> list[Finding]:
        if await self.client.is_stream_live():
            return [Finding("ok", "streams (server-sent events) arrive at once")]
        text = "streams are buffered: the text of an answer arrives at its end"
        return [Finding("wrong", text, "in nginx: proxy_buffering off;")]

    async def _check_socket(self) -> list[Finding]:
        try:
            report, protocol, is_echo = await self.client.open_socket()
        except ProbeFailed as error:
            text = f"no WebSocket opens through {self.client.url}: {error}"
            return [Finding("wrong", text, NGINX_UPGRADE)]
        findings = []
        if protocol != PROTOCOL:
            findings.append(Finding("wrong", "the header Sec-WebSocket-Protocol does not arrive: clients fail"))
        if report.get_header("Origin") != self.client.origin:
            findings.append(Finding("wrong", "the Origin of a WebSocket does not arrive unchanged: browsers fail"))
        if not is_echo:
            findings.append(Finding("wrong", "a long frame of a WebSocket does not arrive"))
        return findings or [Finding("ok", f"WebSockets open, with the protocol {PROTOCOL}, and frames arrive")]

    async def _check_upload(self) -> list[Finding]:
        """Send the largest upload, and if it does not arrive, the largest message."""
        limits = self.settings.limits
        try:
            await self._send_body(limits.file_bytes)
        except ProbeFailed as error:
            size = format_size(limits.file_bytes)
            text = f"an upload of {size} does not arrive (file_bytes): {error}"
            remedy = f"in nginx: client_max_body_size {limits.file_bytes // 2**20 + 1}m;"
            try:
                await self._send_body(limits.chat_bytes)
            except ProbeFailed:
                text = f"neither an upload of {size} nor a message of {format_size(limits.chat_bytes)} arrives: {error}"
            return [Finding("wrong", text, remedy)]
        return [Finding("ok", f"an upload of {format_size(limits.file_bytes)} arrives")]

    async def _send_body(self, size: int) -> None:
        report = await self.client.upload(size)
        if report.bytes != size:
            raise ProbeFailed(f"{report.bytes} bytes of {size} arrive")


_NAMES: dict[str, str] = {
    "_check_forgery": "a request with forged headers",
    "_check_stream": "a stream",
    "_check_socket": "a WebSocket",
    "_check_upload": "an upload",
}
