"""Training: the ``Distiller``, a module that computes the loss, and a thin ``transformers.Trainer`` around it."""
