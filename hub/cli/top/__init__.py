"""`hubbub top`: a live view of a running hub in the terminal, from the metrics of the hub."""
