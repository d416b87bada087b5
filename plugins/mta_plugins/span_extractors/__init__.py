"""Built-in span extractors."""
