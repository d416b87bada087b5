"""Responses of a model to prompts, for training and for evaluation."""
