"""Pages for browsers: the console and the reference."""
