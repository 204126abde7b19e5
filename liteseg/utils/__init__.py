"""Small helpers for all packages: files, images, logging, processes and weights."""
