"""Where events and files are kept: the contract of a log, its records, and the drivers."""
