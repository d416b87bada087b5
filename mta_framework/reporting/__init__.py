"""Writes what a run or a comparison tells: pages, figures, a model card."""
