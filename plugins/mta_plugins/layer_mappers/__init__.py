"""Built-in layer mappers."""
