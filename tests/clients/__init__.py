"""Tests with clients of other projects, each in an environment of its own: `make clients` runs them.

A client is one file in programs/: its header has the exact versions of its packages, and its functions are the tests
that it takes part in. The function of a test gets nothing, and returns what the test compares.
"""
