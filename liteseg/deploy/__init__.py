"""Exported models: making them, checking them, running them."""
