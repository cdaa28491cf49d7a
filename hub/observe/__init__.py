"""What the hub tells of itself: counters and its output."""
