"""Keep logins and tokens out of what is recorded and printed."""

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
_LONGEST_USER = 20  # characters of a user name; longer ones are tokens


def redacted(text: str) -> str:
    """Return `text` with REDACTED instead of the logins and the tokens of the URLs in it; `${NAME}` stays."""
    if "://" not in text:
        return text
    return _PARAMETER.sub(_parameter, _LOGIN.sub(_login, text))


def _login(found: re.Match[str]) -> str:
    user, colon, password = found[1].partition(":")
    if VARIABLE.fullmatch(password) and VARIABLE.sub("", user) == user and len(user) < _LONGEST_USER:
        return found[0]
    if VARIABLE.fullmatch(found[1]) or (not colon and len(user) < _LONGEST_USER):
        return found[0]
    return HIDDEN


def _parameter(found: re.Match[str]) -> str:
    return found[0] if VARIABLE.fullmatch(found[2]) else f"{found[1]}={HIDDEN}"


def redacted_config(value: Any, *, variables: bool = True, name: str = "", options: bool = False) -> Any:
    """Return a config (JSON values) without secrets: in URLs, and under names such as `secret` or `token`.

    Args:
        value: the config, or a value inside it.
        variables: whether `${NAME}` stays. Without it, configs that give a secret in different ways become equal.
        name: the key of the value.
        options: whether the value is inside a table `options`, whose names are those of a store's library.
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
