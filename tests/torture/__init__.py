"""Stress tests: short by default, long with HUBBUB_TEST_TORTURE=long."""
