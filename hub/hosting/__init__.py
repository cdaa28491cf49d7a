"""Define the interface for agents, load them from the agents folder, and run their code within its limits."""
