"""Built-in importance estimators."""
