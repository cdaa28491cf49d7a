"""HTTP resources: one file each, with its routes in a table."""
