"""Built-in alignment terms."""
