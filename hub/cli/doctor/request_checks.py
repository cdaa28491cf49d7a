"""Check how one probe arrived at the hub, and its answer."""

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from hub.access.probes import ProbeReport
from hub.access.proxies import is_trusted_proxy
from hub.cli.doctor.echo_client import RequestAnswer
from hub.cli.doctor.findings import Finding
from hub.cli.doctor.proxy_lines import CLIENT_ADDRESS, HOST, HTTP_1_1, RESPONSE_HEADERS, SCHEME, pass_header
from hub.cli.doctor.way import Way

MAX_CLOCK_DIFFERENCE = 60.0
# Headers of clients that must arrive unchanged: the value that is sent, and what does not work without it.
CLIENT_HEADERS = {
    "Authorization": ("Bearer hubbub-doctor", "programs cannot sign in with their keys"),
    "Cookie": ("hubbub-echo=1", "browsers cannot stay signed in"),
    "Last-Event-ID": ("hubbub:1", "streams cannot resume"),
    "Idempotency-Key": ("hubbub-doctor", "a message that is sent again is answered twice"),
}


def check_answer(way: Way, answer: RequestAnswer) -> Iterator[Finding]:
    """Check a probe that had the CLIENT_HEADERS and an Origin. The hub may have refused it."""
    for check in (_check_refusal, _check_request, _check_address, _check_headers, _check_client):
        yield from check(way, answer.report)
    if answer.report.refusal is None:
        yield from _check_response(way, answer)


def _check_refusal(way: Way, report: ProbeReport) -> Iterator[Finding]:
    if way.is_direct:
        yield Finding("ok", f"{way.url} is the hub itself, without a proxy")
    if report.refusal is not None:
        reason = report.refusal.partition(": ")[0]
        remedy = f'public_url = "{way.client.origin}"' if way.settings.is_sign_in_on else "sign_in = true"
        if way.settings.is_sign_in_on and report.host != way.host:
            remedy = HOST.to_remedy(way.proxy)
        text = f"the hub refuses requests that come through {way.url}: {reason}"
        yield Finding("wrong", f"{text} (so streams and uploads were not tested)", remedy)


def _check_request(way: Way, report: ProbeReport) -> Iterator[Finding]:
    if report.version != "1.1":
        yield way.wrong(f"requests arrive as HTTP/{report.version}: WebSockets and streams need HTTP/1.1", HTTP_1_1)
    if report.host != way.host:
        text = f"the Host {way.host} arrives as {report.host}: cookies, links and pages of the hub need it"
        yield way.wrong(text, HOST)


def _check_address(way: Way, report: ProbeReport) -> Iterator[Finding]:
    """Compare the URL with the settings. The hub also knows its paths without `base_path`."""
    if way.path != way.settings.base_path:
        text = f"the address has the path {way.path or '/'}, but base_path is {way.settings.base_path or 'not set'}"
        yield Finding("wrong", f"{text}: pages and links of the hub lead elsewhere", f'base_path = "{way.path}"')
    if way.settings.public_url not in (None, way.client.origin) and way.settings.is_sign_in_on:
        text = f"public_url is {way.settings.public_url}: links for people lead there, not to {way.url}"
        yield Finding("advice", text, f'public_url = "{way.client.origin}"')


def _check_headers(way: Way, report: ProbeReport) -> Iterator[Finding]:
    changed_names = [name for name, (value, _) in CLIENT_HEADERS.items() if report.get_header(name) != value]
    for name in changed_names:
        text = f"the header {name} does not arrive unchanged: {CLIENT_HEADERS[name][1]}"
        yield way.wrong(text, pass_header(name))
    if report.get_header("Origin") != way.client.origin:
        arrival = report.get_header("Origin") or "nothing"
        text = f"the Origin {way.client.origin} arrives as {arrival}: browsers cannot sign in"
        yield way.wrong(text, pass_header("Origin"))
    elif not changed_names:
        names = sorted({name for name, _ in report.headers if name.lower().startswith(("x-", "forwarded", "via"))})
        addition = f"; the proxy adds {', '.join(names)}" if names else ""
        yield Finding("ok", f"{', '.join(CLIENT_HEADERS)} and Origin arrive unchanged{addition}")


def _check_client(way: Way, report: ProbeReport) -> Iterator[Finding]:
    """Check whom the hub takes for the client: its scheme and its address."""
    is_trusted = is_trusted_proxy(report.peer, way.settings.trusted_proxies)
    is_named = any(report.get_header(name) for name in ("X-Forwarded-For", "Forwarded"))
    trust = f'trusted_proxies = ["{report.peer}"]'
    if report.scheme != way.url.scheme:
        text = f"requests over {way.url.scheme} look like {report.scheme}, so browsers cannot sign in"
        has_scheme = report.get_header("X-Forwarded-Proto") == way.url.scheme
        yield Finding("wrong", text, trust) if has_scheme and not is_trusted else way.wrong(text, SCHEME)
    if way.is_direct:
        return
    if not is_named:
        text = f"{report.peer}, which passes requests on to the hub, does not name the address of its clients"
        yield way.wrong(f"{text}, so they share its limits", CLIENT_ADDRESS)
    elif not is_trusted:
        text = f"the proxy {report.peer} is not trusted: all clients have its address, and share its limits"
        yield Finding("wrong", text, trust)
    else:
        yield Finding("ok", f"the client is {report.address}, over {report.scheme}, at {report.host}")


def _check_response(way: Way, answer: RequestAnswer) -> Iterator[Finding]:
    headers = answer.headers
    if headers.get("X-Hubbub-Echo") != "1" or "hubbub-echo=1" not in ", ".join(headers.getall("Set-Cookie", ())):
        yield way.wrong("headers of the hub's responses are lost: the proxy removes them", RESPONSE_HEADERS)
    try:
        difference = parsedate_to_datetime(headers.get("Date", "")).timestamp() - time.time()
    except (TypeError, ValueError):
        return
    if abs(difference) > MAX_CLOCK_DIFFERENCE:
        text = f"the clock of the proxy and the clock here differ by {abs(difference):.0f} s"
        yield Finding("advice", text, "timedatectl set-ntp true, on both")
