"""Weights and training state: downloads, archives and a safe unpickler."""
