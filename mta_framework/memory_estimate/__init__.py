"""Estimates the peak memory of training: a step is run on tensors without values, and their bytes are counted."""
