"""Principals, their permissions, and the Host and Origin headers that the hub accepts."""
