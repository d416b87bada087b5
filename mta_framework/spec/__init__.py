"""Specs: sections as pydantic models, strict reading with every fault at once, and what a field affects. No torch."""
