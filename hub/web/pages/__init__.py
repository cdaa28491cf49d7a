"""Files for browsers and for programs: the console, and the two clients."""
