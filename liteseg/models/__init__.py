"""Networks, with the published parameter names."""

from liteseg.models.backbones import STDC1, STDC2
from liteseg.models.pp_liteseg import PPLiteSeg

__all__ = ["STDC1", "STDC2", "PPLiteSeg"]
