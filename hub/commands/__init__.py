"""The use cases of the hub. The table in table.py is the only way to call them."""
