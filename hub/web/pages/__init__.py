"""Files for browsers: the console, and the JavaScript client."""
