"""The use cases of the hub. Other packages call them only through table.py."""
