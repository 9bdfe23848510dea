"""Logins and tokens in URLs and options. Logins and tokens are read from environment variables and never stored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from groundup.core.errors import ConfigError
from groundup.core.redact import HIDDEN, VARIABLE, redacted

_HIDDEN = re.compile(rf"://{re.escape(HIDDEN)}@|=\s*{re.escape(HIDDEN)}(?=&|$)|^{re.escape(HIDDEN)}$")


def resolve_variables(text: str) -> str:
    """Replace each `${NAME}` by the value of the environment variable NAME.

    Raises:
        ConfigError: An environment variable is not set, or the recipe is a copy in which secrets are hidden.
    """
    if _HIDDEN.search(text):
        raise ConfigError(
            f"{text}: the login or token was removed",
            rule=f"recipe.toml in a run directory contains {HIDDEN} instead of each secret",
            fix="Run the original recipe, or replace REDACTED by ${NAME} and set the environment variable NAME.",
        )

    def value_of(found: re.Match[str]) -> str:
        if (value := os.environ.get(found[1])) is not None:
            return value
        raise ConfigError(
            f"{text}: environment variable {found[1]} is not set",
            fix=f"Run export {found[1]}=..., then run the command again.",
        )

    return VARIABLE.sub(value_of, text)


def without_login(address: str) -> str:
    """Return a URL for the cached file list, in which the login and all variables are hidden."""
    return redacted(VARIABLE.sub("hidden-by-a-variable", address))


def with_login(url: str, addresses: Iterable[str]) -> str:
    """Return the URL of a listed file, with the login of the recipe's URL from which the file was listed."""
    for address in addresses:
        kept = without_login(address)
        if kept == address:
            continue
        if url.startswith(kept):
            return resolve_variables(address) + url[len(kept) :]
        scheme, _, rest = address.partition("://")
        login, _, host = rest.partition("/")[0].rpartition("@")
        for place in (
            f"{scheme}://{host}/",
            f"{scheme}://{HIDDEN}@{host}/",
        ):  # URLs of files that were found in a directory or with a pattern
            if login and url.startswith(place):
                return f"{scheme}://{resolve_variables(login)}@{host}/{url[len(place) :]}"
    return url
