"""`hubbub doctor`: what is unsafe, missing or misconfigured, each with the line that fixes it."""
