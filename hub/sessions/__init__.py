"""One conversation: its queue, its runs, and what they write to the log."""
