"""Benchmarks: cost of a network, data loading, training, evaluation, and exported models."""
