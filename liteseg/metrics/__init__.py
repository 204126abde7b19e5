"""Segmentation metrics: pixel counts in numpy, of single images and of whole datasets."""

from liteseg.metrics.confusion import ConfusionMatrix, nothing_counted
from liteseg.metrics.image_counts import BoundaryOptions, ImageCounts

__all__ = ["BoundaryOptions", "ConfusionMatrix", "ImageCounts", "nothing_counted"]
