"""Counters, log lines, and the output of the hub."""
