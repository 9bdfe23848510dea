"""Masking of personal data and secrets with placeholder tokens such as [EMAIL].

Every command imports the settings of this package, even for `--help`. The finders are imported only when they are used,
because compiling their patterns takes about 60 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.corpus.privacy.settings import KINDS, PrivacySettings

if TYPE_CHECKING:
    from groundup.corpus.privacy.masker import Masked, Masker, placeholder_token

__all__ = ["KINDS", "Masked", "Masker", "PrivacySettings", "placeholder_token"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from groundup.corpus.privacy import masker

    return getattr(masker, name)
