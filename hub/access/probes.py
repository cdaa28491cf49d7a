"""Probes: requests of the operator that test the way through proxies to the hub."""

from collections.abc import Callable

import attrs

from hub.access.secrets import is_secret_of, make_token, parse_token

PROBE_MS = 60_000
MAX_PROBES = 100  # the oldest ones go first


@attrs.frozen(kw_only=True)
class ProbeReport:
    """How a probe arrived.

    *peer* and *peerPort* are the other end of the connection. *address*, *scheme* and *host* are those of the client,
    as the hub understands the headers of its proxies. *refusal* is the text of the error if the hub refuses the
    request for its Host, its Origin or its proxy.
    """

    method: str
    version: str
    path: str
    headers: tuple[tuple[str, str], ...]
    peer: str
    peerPort: int | None
    address: str
    scheme: str
    host: str
    refusal: str | None

    def get_header(self, name: str) -> str:
        """Return the values of a header, or "" without it."""
        return ", ".join(value for header, value in self.headers if header.lower() == name.lower())


@attrs.define
class _Probe:
    digest: str
    expires: int  # ms
    report: ProbeReport | None = None


@attrs.define(eq=False, kw_only=True)
class Probes:
    """The latest probes, in memory. The token of each works once, within a minute.

    A report has all headers, so it is for the operator alone, and never part of a response to the probe.
    """

    now: Callable[[], int]
    new_secret: Callable[[int], str]
    _probes: dict[str, _Probe] = attrs.Factory(dict)  # by the ids of their tokens

    def issue(self) -> str:
        """Return a token for a new probe."""
        token = make_token("hp", self.new_secret)
        while len(self._probes) >= MAX_PROBES:
            del self._probes[next(iter(self._probes))]
        self._probes[token.id] = _Probe(token.digest, self.now() + PROBE_MS)
        return token.text

    def receive(self, text: str, report: ProbeReport) -> bool:
        """Use up a token, and keep the report of its probe. Return False if the token is not valid."""
        token = parse_token(text)
        probe = self._probes.get(token.id) if token is not None and token.kind == "hp" else None
        if token is None or probe is None or not is_secret_of(probe.digest, token):
            return False
        if probe.report is not None or probe.expires <= self.now():
            return False
        probe.report = report
        return True

    def find_report(self, probe_id: str) -> ProbeReport | None:
        """Return the report of the probe whose token has this id, or None if it has not arrived."""
        probe = self._probes.get(probe_id)
        return probe.report if probe is not None else None
