"""Tasks: train, evaluate, predict, export and benchmark, callable from Python."""
