"""Models: loading, key-layer states, heads and export."""
