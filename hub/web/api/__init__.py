"""The HTTP API: one module for each resource, with a table of its routes."""
