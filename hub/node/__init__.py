"""One process of the hub: it owns the log, the agents, the sessions and the connections."""
