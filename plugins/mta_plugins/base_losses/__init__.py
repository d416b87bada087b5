"""Built-in base losses."""
