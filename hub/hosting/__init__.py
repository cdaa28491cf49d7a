"""The agents folder: the interface for agent files, loading, slots, and running agent code within its limits."""
