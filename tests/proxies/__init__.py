"""Real proxies before a hub, and real attacks on a hub."""
