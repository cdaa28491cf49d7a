"""Agents of other kinds, one module per kind. hub.hosting.loader has the table of them: ADAPTERS."""
