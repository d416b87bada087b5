"""Generates, scores and reports."""
