"""Adapters, against real endpoints."""
