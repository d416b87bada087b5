"""Runs a grid of specs, shared work once, and compares them."""
