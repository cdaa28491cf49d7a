"""Tests that send many frames, or need packages that no other test needs: `make fuzz` runs them."""
