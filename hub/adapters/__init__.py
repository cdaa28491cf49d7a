"""The adapters for agents in TOML files. `ADAPTER_MODULES` in hub.hosting.loader names the module of each adapter."""
