"""The optional packages of export and deployment."""

from __future__ import annotations

import importlib
from types import ModuleType

from liteseg.errors import UserError


def need(name: str, purpose: str) -> ModuleType:
    """Import a package.

    Raises:
        UserError: it is not installed; the message has the pip line.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{purpose} needs the package {name}, which can't be imported ({error}); install it: "
            f"pip install {name}  (or all that deployment can use: pip install 'liteseg[export]')"
        ) from None
