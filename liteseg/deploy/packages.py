"""Optional packages of export and deployment."""

from __future__ import annotations

import importlib
from types import ModuleType

from liteseg.errors import UserError


def require(name: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        name: the package.
        purpose: the feature that needs it, for the error message.

    Raises:
        UserError: it is not installed; the message contains the pip command.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{purpose} needs the package {name}, which can't be imported ({error}); "
            + (
                "`liteseg doctor` prints the command that installs PaddlePaddle"
                if name.partition(".")[0] == "paddle"  # a package `paddle` on PyPI is another one
                else f"install it: pip install {name}  (or all of deployment: pip install "
                "'liteseg[export]')"
            )
        ) from None
