"""The only door: every use case of the hub, each with the principal who asks."""
