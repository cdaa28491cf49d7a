"""Adapters, one module for each kind of agent. `ADAPTER_MODULES` in hub.hosting.loader lists them."""
