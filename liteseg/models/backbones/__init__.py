"""Encoders."""

from liteseg.models.backbones.stdc import STDC1, STDC2

__all__ = ["STDC1", "STDC2"]
