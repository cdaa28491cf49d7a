"""Send probes through the proxy in front of the hub, and compare what arrives."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime

import attrs
from yarl import URL

from hub.access.probes import ProbeReport
from hub.access.proxies import is_trusted_proxy
from hub.cli.doctor.echo_client import (
    PROTOCOL,
    EchoClient,
    ProbeFailed,
    RequestAnswer,
    name_servers,
    open_echo_client,
    parse_address,
)
from hub.cli.doctor.findings import Finding
from hub.cli.doctor.proxy_lines import (
    CLIENT_ADDRESS,
    HOST,
    HTTP_1_1,
    LONG_SOCKETS,
    SCHEME,
    UNBUFFERED,
    UNBUFFERED_BODIES,
    UNCOMPRESSED,
    UPGRADE,
    ProxyLines,
    allow_bodies,
    drop_header,
    find_proxy,
    pass_header,
    pass_requests,
    set_user,
)
from hub.cli.failures import CommandFailed
from hub.limits import MiB, format_size
from hub.settings import Settings

FORGED_ADDRESS, FORGED_HOST, FORGED_USER = "192.0.2.66", "forged.invalid", "hubbub-doctor-forgery"  # RFC 5737, 2606
MAX_CLOCK_DIFFERENCE = 60.0
SIGN_IN_STATUSES = (301, 302, 303, 307, 308, 401, 403)
MIN_PAUSE_SECONDS = 0.5  # at the hub, of an upload that pauses for longer
# Headers of clients that must arrive unchanged: the value that is sent, and what does not work without it.
CLIENT_HEADERS = {
    "Authorization": ("Bearer hubbub-doctor", "programs cannot sign in with their keys"),
    "Cookie": ("hubbub-echo=1", "browsers cannot stay signed in"),
    "Last-Event-ID": ("hubbub:1", "streams cannot resume"),
    "Idempotency-Key": ("hubbub-doctor", "a message that is sent again is answered twice"),
}


def check_proxy(settings: Settings, url: str) -> Iterator[Finding]:
    """Send probes to the public address *url*. A hub must run on the data folder."""
    try:
        findings = asyncio.run(_collect_findings(settings, url))
    except CommandFailed as error:
        findings = [Finding("wrong", str(error))]
    yield from findings


async def _collect_findings(settings: Settings, url: str) -> list[Finding]:
    async with open_echo_client(settings, parse_address(url)) as client:
        return [finding async for finding in _Examination(client).run()]


@attrs.define
class _Examination:
    """The checks of one way to the hub. *proxy* is the key of the proxy that the answers name, or "".

    *is_direct* is True if the probes reach the hub itself, without a proxy.
    """

    client: EchoClient
    proxy: str = ""
    is_direct: bool = False

    @property
    def settings(self) -> Settings:
        return self.client.settings

    @property
    def url(self) -> URL:
        return self.client.url

    @property
    def host(self) -> str:
        """The header Host of requests to the URL."""
        return self.url.authority if self.url.explicit_port else self.url.host or ""

    def _wrong(self, text: str, mend: ProxyLines) -> Finding:
        return Finding("wrong", text, mend.to_remedy(self.proxy))

    async def run(self) -> AsyncIterator[Finding]:
        """Yield what is found. While the hub refuses the probes, streams and uploads cannot be tried."""
        headers = {name: value for name, (value, _) in CLIENT_HEADERS.items()} | {"Origin": self.client.origin}
        try:
            answer = await self.client.get(headers)
        except ProbeFailed as error:
            self.proxy = find_proxy(error.server)
            yield self._describe_failure(error)
            return
        report, self.proxy = answer.report, find_proxy(name_servers(answer.headers))
        self.is_direct = report.peerPort in self.client.own_ports
        for check in (self._check_refusal, self._check_request, self._check_headers, self._check_client):
            for finding in check(report):
                yield finding
        steps = [self._check_forgery, self._check_socket]
        if report.refusal is None:
            steps += [self._check_stream, self._check_upload]
            for finding in self._check_response(answer):
                yield finding
        for step in steps[self.is_direct :]:
            try:
                for finding in await step():
                    yield finding
            except ProbeFailed as error:
                yield Finding("wrong", f"{STEP_NAMES[step.__name__]} through {self.url}: {error}")

    def _describe_failure(self, error: ProbeFailed) -> Finding:
        """Return the finding for a way on which nothing reaches the hub."""
        text = f"{self.url}: {error}"
        if error.status is None:
            return Finding("wrong", text)
        if error.status in SIGN_IN_STATUSES:
            path = self.client.echo_url.path
            remedy = (
                f"try the address to which it leads, or let the proxy pass on {path}: the doctor has a token for it"
            )
            return Finding("wrong", text, remedy)
        return self._wrong(text, pass_requests(self.settings.port))

    # --- one request ------------------------------------------------------------------------------------------------

    def _check_refusal(self, report: ProbeReport) -> Iterator[Finding]:
        if self.is_direct:
            yield Finding("ok", f"{self.url} is the hub itself, without a proxy")
        if report.refusal is not None:
            reason = report.refusal.partition(":")[0]
            remedy = f'public_url = "{self.client.origin}"' if self.settings.is_sign_in_on else "sign_in = true"
            if self.settings.is_sign_in_on and report.host != self.host:
                remedy = HOST.to_remedy(self.proxy)
            text = f"the hub refuses requests that come through {self.url}: {reason}"
            yield Finding("wrong", f"{text} (streams and uploads are not tried before)", remedy)

    def _check_request(self, report: ProbeReport) -> Iterator[Finding]:
        if report.version != "1.1":
            yield self._wrong(
                f"requests arrive as HTTP/{report.version}: WebSockets and streams need HTTP/1.1", HTTP_1_1
            )
        if report.host != self.host:
            text = f"the Host {self.host} arrives as {report.host}: cookies, links and pages of the hub need it"
            yield self._wrong(text, HOST)
        path = self.client.echo_url.path
        if report.path != path:
            yield Finding("advice", f"the path {path} arrives as {report.path}")

    def _check_headers(self, report: ProbeReport) -> Iterator[Finding]:
        changed_names = [name for name, (value, _) in CLIENT_HEADERS.items() if report.get_header(name) != value]
        for name in changed_names:
            text = f"the header {name} does not arrive unchanged: {CLIENT_HEADERS[name][1]}"
            yield self._wrong(text, pass_header(name))
        if report.get_header("Origin") != self.client.origin:
            arrival = report.get_header("Origin") or "nothing"
            text = f"the Origin {self.client.origin} arrives as {arrival}: browsers cannot sign in"
            yield self._wrong(text, pass_header("Origin"))
        elif not changed_names:
            names = sorted({name for name, _ in report.headers if name.lower().startswith(("x-", "forwarded", "via"))})
            addition = f"; the proxy adds {', '.join(names)}" if names else ""
            yield Finding("ok", f"{', '.join(CLIENT_HEADERS)} and Origin arrive unchanged{addition}")

    def _check_client(self, report: ProbeReport) -> Iterator[Finding]:
        """Check whom the hub takes for the client: its scheme and its address."""
        is_trusted = is_trusted_proxy(report.peer, self.settings.trusted_proxies)
        is_named = any(report.get_header(name) for name in ("X-Forwarded-For", "Forwarded"))
        trust = f'trusted_proxies = ["{report.peer}"]'
        if report.scheme != self.url.scheme:
            text = f"requests over {self.url.scheme} look like {report.scheme}, so browsers cannot sign in"
            has_scheme = report.get_header("X-Forwarded-Proto") == self.url.scheme
            yield Finding("wrong", text, trust) if has_scheme and not is_trusted else self._wrong(text, SCHEME)
        if self.is_direct:
            return
        if not is_named:
            text = f"{report.peer}, which passes requests on to the hub, does not name the address of its clients"
            yield self._wrong(f"{text}, so they share its limits", CLIENT_ADDRESS)
        elif not is_trusted:
            text = f"the proxy {report.peer} is not trusted: all clients have its address, and share its limits"
            yield Finding("wrong", text, trust)
        else:
            yield Finding("ok", f"the client is {report.address}, over {report.scheme}, at {report.host}")

    def _check_response(self, answer: RequestAnswer) -> Iterator[Finding]:
        headers = answer.headers
        if headers.get("X-Hubbub-Echo") != "1" or "hubbub-echo=1" not in ", ".join(headers.getall("Set-Cookie", ())):
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
        """Send what only proxies may say. A proxy may pass it on if it appends what it knows itself."""
        user_header, scheme = self.settings.user_header, {"http": "https", "https": "http"}[self.url.scheme]
        forgeries = {
            "X-Forwarded-For": (FORGED_ADDRESS, "claim any address", CLIENT_ADDRESS),
            "X-Forwarded-Proto": (scheme, "claim any scheme", SCHEME),
            "X-Forwarded-Host": (FORGED_HOST, "claim any Host", drop_header("X-Forwarded-Host")),
            "Forwarded": (f"for={FORGED_ADDRESS}", "hide its address", drop_header("Forwarded")),
        }
        if user_header is not None:
            forgeries[user_header] = (FORGED_USER, "sign in as any user", set_user(user_header))
        answer = await self.client.get({name: value for name, (value, *_) in forgeries.items()})
        findings = []
        for name, (value, effect, mend) in forgeries.items():
            if answer.report.get_header(name).rpartition(",")[2].strip() == value:
                text = f"a client can {effect}: the proxy passes on the {name} of clients"
                findings.append(self._wrong(text, mend))
        return findings or [Finding("ok", "a client cannot claim the address of another, or be another user")]

    async def _check_socket(self) -> list[Finding]:
        answer = await self.client.open_socket()
        if answer.report is not None and answer.report.get_header("Upgrade").lower() != "websocket":
            return [self._wrong("the header Upgrade does not arrive, so no WebSocket opens", UPGRADE)]
        if answer.report is not None and answer.report.refusal is not None:
            return []  # the first request was refused, too
        if answer.failure:
            return [self._wrong(f"no WebSocket opens through {self.url}: {answer.failure}", UPGRADE)]
        findings = []
        if answer.protocol != PROTOCOL:
            text = "the header Sec-WebSocket-Protocol does not arrive, or its answer: clients fail"
            findings.append(self._wrong(text, pass_header("Sec-WebSocket-Protocol")))
        if not answer.is_echoed:
            findings.append(self._wrong("a WebSocket is closed before its first message comes back", LONG_SOCKETS))
        return findings or [Finding("ok", f"WebSockets open, with the protocol {PROTOCOL}, and messages arrive")]

    async def _check_stream(self) -> list[Finding]:
        answer = await self.client.stream()
        findings = []
        if not answer.is_live:
            text = "streams (server-sent events) are buffered: the text of an answer arrives at its end"
            findings.append(self._wrong(text, UNBUFFERED))
        if answer.encoding:
            text = f"the proxy compresses streams ({answer.encoding}), which delays their events"
            findings.append(
                attrs.evolve(self._wrong(text, UNCOMPRESSED), level="advice" if answer.is_live else "wrong")
            )
        return findings or [Finding("ok", "streams (server-sent events) arrive at once")]

    async def _check_upload(self) -> list[Finding]:
        """Send the largest upload, and if it does not arrive, the largest message."""
        limits = self.settings.limits
        size = format_size(limits.file_bytes)
        try:
            seconds = await self._send_body(limits.file_bytes)
        except ProbeFailed as error:
            text = f"an upload of {size} does not arrive (file_bytes): {error}"
            try:
                await self._send_body(limits.chat_bytes)
            except ProbeFailed:
                text = f"neither an upload of {size} nor a message of {format_size(limits.chat_bytes)} arrives: {error}"
            return [self._wrong(text, allow_bodies(limits.file_bytes // MiB + 1))]
        if seconds < MIN_PAUSE_SECONDS:
            text = f"an upload of {size} arrives, after the proxy has stored it: its disk needs this space"
            return [Finding("ok", text, UNBUFFERED_BODIES.to_remedy(self.proxy))]
        return [Finding("ok", f"an upload of {size} arrives")]

    async def _send_body(self, size: int) -> float:
        """Send a body, and return how long it took at the hub. Raises ProbeFailed."""
        answer = await self.client.upload(size)
        if answer.bytes != size:
            raise ProbeFailed(f"{answer.bytes} bytes of {size} arrive")
        return answer.seconds


STEP_NAMES = {
    "_check_forgery": "a request with forged headers",
    "_check_socket": "a WebSocket",
    "_check_stream": "a stream",
    "_check_upload": "an upload",
}
