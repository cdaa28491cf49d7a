"""The way of a request from the public address through proxies to the hub."""

import attrs
from yarl import URL

from hub.cli.doctor.echo_client import EchoClient
from hub.cli.doctor.findings import Finding
from hub.cli.doctor.proxy_lines import ProxyLines
from hub.settings import Settings


@attrs.frozen
class Way:
    """The way of the probes of a client. *proxy* is the key of the proxy that the responses name, or "".

    *is_direct* is True if they reach the hub itself, without a proxy.
    """

    client: EchoClient
    proxy: str
    is_direct: bool

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

    @property
    def path(self) -> str:
        """The path of the URL, as in `base_path`."""
        return self.url.path.rstrip("/")

    def wrong(self, text: str, lines: ProxyLines) -> Finding:
        """Return the finding for a mistake of the proxy."""
        return Finding("wrong", text, lines.to_remedy(self.proxy))
