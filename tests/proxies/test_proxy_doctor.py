"""`hubbub doctor --url` through nginx, Caddy and HAProxy."""

from pathlib import Path

from support.process import run_hubbub
from support.proxy_servers import ProxyKind, each_proxy
from support.sites import Site, open_site

HOST = "localhost"  # a name that the doctor can resolve


async def examine(site: Site) -> list[str]:
    """Run the doctor with the settings of the hub, and return what it finds wrong."""
    variables = {f"HUBBUB_{name.upper()}": value for name, value in site.settings.items()}
    certificate = site.place.certificate.file
    output = await run_hubbub(site.hub.folder, "doctor", "--url", site.url, **variables, SSL_CERT_FILE=certificate)
    assert output.code in (0, 1), output
    assert f"at {HOST}:" in output.out, output.out
    return [line for line in output.out.splitlines() if line.startswith("wrong")]


@each_proxy
async def test_the_doctor_finds_nothing_wrong_with_the_file(kind: ProxyKind, tmp_path: Path) -> None:
    async with open_site(tmp_path, kind, host=HOST) as site:
        assert await examine(site) == []
