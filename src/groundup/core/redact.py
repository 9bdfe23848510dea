"""Removal of logins and tokens from printed text and from saved records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "REDACTED"
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LOGIN = re.compile(r"(?<=://)([^\s/\"'<>?#]+)(?=@)")
_PARAMETER = re.compile(
    r"(?<=[?&;#])([\w.\-]*(?:token|sig|signature|secret|password|passwd|pwd|credential|apikey|api[_-]key|access[_-]?key"
    r"|accesskeyid|private[_-]?key|auth|sas|key-pair-id)|key|code)="
    r"(\$\{[A-Za-z_]\w*\}|[^&\s\"'<>#;]*[^&\s\"'<>#;,.:!?)\]}])",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:token|secret|password|passwd|credentials?|sas|connection_string|authorization"
    r"|(?:api|access|account|secret|secret_access|private|session)_?key)$",
    re.IGNORECASE,
)
_OPTION_NAME = re.compile(_SECRET_NAME.pattern + "|^key$|^auth$|^pass$|^access_key_id$", re.IGNORECASE)
_MAX_USER_LENGTH = 20  # characters; a longer user name is probably a token


def redacted(text: str) -> str:
    """Replace logins and tokens in URLs by REDACTED. References to environment variables, `${NAME}`, are kept.

    Args:
        text: Text that may contain URLs.
    """
    if "://" not in text:
        return text
    return _PARAMETER.sub(_parameter, _LOGIN.sub(_login, text))


def _login(found: re.Match[str]) -> str:
    user, colon, password = found[1].partition(":")
    if VARIABLE.fullmatch(password) and VARIABLE.sub("", user) == user and len(user) < _MAX_USER_LENGTH:
        return found[0]
    if VARIABLE.fullmatch(found[1]) or (not colon and len(user) < _MAX_USER_LENGTH):
        return found[0]
    return HIDDEN


def _parameter(found: re.Match[str]) -> str:
    return found[0] if VARIABLE.fullmatch(found[2]) else f"{found[1]}={HIDDEN}"


def redacted_config(value: Any, *, variables: bool = True, name: str = "", options: bool = False) -> Any:
    """Return a config without secrets. Secrets occur in URLs and in keys such as `secret` or `token`.

    Args:
        value: Config as JSON values, or a nested value of a config.
        variables: Whether to keep `${NAME}`. If false, two configs become equal if they differ only in how they give a
            secret.
        name: Key that holds the value.
        options: Whether the value belongs to a table `options`, which holds options of an fsspec file system.
    """
    if isinstance(value, Mapping):
        inside = options or name == "options"
        return {
            key: redacted_config(each, variables=variables, name=str(key), options=inside)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redacted_config(each, variables=variables, name=name, options=options) for each in value]
    if not isinstance(value, str) or not value:
        return value
    if (_OPTION_NAME if options else _SECRET_NAME).search(name) and not (variables and VARIABLE.fullmatch(value)):
        return HIDDEN
    return redacted(value if variables else VARIABLE.sub("hidden-by-a-variable", value))
