"""The aiohttp server: WebSocket, HTTP, server-sent events and static pages."""
