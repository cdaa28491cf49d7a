"""Real proxies in front of a hub, and real attacks on a hub."""
