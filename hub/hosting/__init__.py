"""The agents folder: what an agent file sees, how it is loaded, and how its code is run."""
