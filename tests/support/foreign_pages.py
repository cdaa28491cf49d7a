"""Pages of a browser with a client of another project."""

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from support.browser import serve_app
from support.foreign_clients import ForeignClient

TYPES = {"js": "text/javascript", "css": "text/css"}


@contextlib.asynccontextmanager
async def serve_component(client: ForeignClient, hub_url: str, code: str) -> AsyncIterator[str]:
    """Serve a page with the component `Chat` of *code*, from an origin other than the hub's; yield its URL.

    The program bundles the component with the function `bundle` of page.mjs.
    """
    names = await client.run("bundle", hub_url, code)
    # Other tests bundle in the same folder.
    files = {f"/{name}": ((client.folder / name).read_bytes(), TYPES[name.rpartition(".")[2]]) for name in names}
    styles = "".join(f'<link rel="stylesheet" href="{name}">' for name in names if name.endswith(".css"))
    document = (
        f'<!doctype html><meta charset="utf-8"><title>Chat</title><link rel="icon" href="data:,">{styles}'
        '<div id="root"></div><script type="module" src="page.js"></script>'
    )

    async def respond(request: web.Request) -> web.Response:
        body, content_type = files.get(request.path, (document.encode(), "text/html"))
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    app = web.Application()
    app.router.add_get("/{name:.*}", respond)
    async with serve_app(app) as url:
        yield url
