"""One module that computes the loss, the Distiller, and a thin ``transformers.Trainer`` around it."""
