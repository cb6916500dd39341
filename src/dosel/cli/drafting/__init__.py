"""A declaration from a CSV: what its columns hold (`profile`), what follows (`draft`), and the file (`source`)."""
