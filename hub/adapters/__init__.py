"""Agents of other kinds, one file per kind: `adapter = "KIND"` in an agent's TOML file imports hub/adapters/KIND.py."""
