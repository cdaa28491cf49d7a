"""From the log to the sockets: channels, subscriptions, connections, and how a client catches up."""
