"""Principals, their permissions, and the Hosts and Origins that the hub accepts."""
