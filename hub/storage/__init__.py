"""Storage of events and files: the contract of a log, its records, and the drivers."""
