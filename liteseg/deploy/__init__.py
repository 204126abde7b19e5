"""Exported models: writing, verifying and running them."""
