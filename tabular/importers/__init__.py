"""Foreign results as tables: one file per format. Importing this package loads none of them."""
