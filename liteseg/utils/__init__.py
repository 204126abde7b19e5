"""Helpers that know nothing of models, data or configs: files, weights, pictures, devices."""
