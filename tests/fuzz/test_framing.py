"""Framing, UTF-8 and the closing handshake: Autobahn's cases, by the package kosoku, against the hub's own endpoint."""

import pytest
from support.echo import EchoProtocol
from support.hub import Hub

from hub.protocols import PROTOCOLS

kosoku = pytest.importorskip("kosoku", reason="make fuzz installs it")

# The hub offers no compression, which is in the cases 12 and 13. The cases 9 send long messages.
GROUPS = {"framing": (247, ["*"], ["9.*", "12.*", "13.*"]), "long": (54, ["9.*"], [])}
# They send binary messages that are also valid text, and expect binary ones. The hub reads both alike, and does not
# tell a protocol which one it was.
TEXT_IN_BINARY = {"1.2.1", *(f"9.4.{number}" for number in range(2, 10)), "9.8.1"}
KNOWN_FAILURES = TEXT_IN_BINARY


@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", GROUPS)
async def test_all_cases_but_the_known_ones_pass(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, fresh_plugins: None, group: str
) -> None:
    """Each case opens a socket, and compares what comes back, and how the socket is closed."""
    count, cases, excluded_cases = GROUPS[group]
    monkeypatch.setitem(PROTOCOLS, "plain", (EchoProtocol.__module__, EchoProtocol.__name__))
    await hub.start(frame_bytes=2**26, commands_per_second=10**6)
    address = f"ws://127.0.0.1:{hub.port}/api/v1/ws"
    try:
        results = await kosoku.run_fuzzingclient(address, cases=cases, exclude_cases=excluded_cases)
    except kosoku.FailureError as error:
        results = error.results
    assert len(results) == count
    failed = {result.case_id: f"{result.result} {result.result_close}" for result in results if not result.passed}
    assert failed.keys() == KNOWN_FAILURES & {result.case_id for result in results}, failed
