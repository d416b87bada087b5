"""Shows texts with their spans: what a run would compare, before it compares anything."""
