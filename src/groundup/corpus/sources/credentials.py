"""Logins and tokens in addresses and options: kept in the environment, never in the record."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from groundup.core.errors import ConfigError
from groundup.core.redact import HIDDEN, VARIABLE, redacted

_HIDDEN = re.compile(rf"://{re.escape(HIDDEN)}@|=\s*{re.escape(HIDDEN)}(?=&|$)|^{re.escape(HIDDEN)}$")


def resolve_variables(text: str) -> str:
    """Return `text` with the environment's values for each `${NAME}`.

    Raises:
        ConfigError: a variable is not set, or the secret was left out of this copy of the recipe.
    """
    if _HIDDEN.search(text):
        raise ConfigError(
            f"{text}: the login or token was left out",
            rule=f"a run's directory keeps no secrets, so its recipe.toml has {HIDDEN} in their place",
            fix="Run the recipe that you wrote, or write ${NAME} for REDACTED and set the environment variable NAME.",
        )

    def value_of(found: re.Match[str]) -> str:
        if (value := os.environ.get(found[1])) is not None:
            return value
        raise ConfigError(
            f"{text}: no environment variable {found[1]}",
            rule="${NAME} in an address or an option stands for the environment variable NAME",
            fix=f"export {found[1]}=..., then run this again.",
        )

    return VARIABLE.sub(value_of, text)


def without_login(address: str) -> str:
    """Return an address as it is kept in a list of files: equal for every password."""
    return redacted(VARIABLE.sub("hidden-by-a-variable", address))


def with_login(url: str, addresses: Iterable[str]) -> str:
    """Return the URL of a listed file with the login of the address that it was listed by."""
    for address in addresses:
        kept = without_login(address)
        if kept == address:
            continue
        if url.startswith(kept):
            return resolve_variables(address) + url[len(kept) :]
        scheme, _, rest = address.partition("://")
        login, _, host = rest.partition("/")[0].rpartition("@")
        for place in (f"{scheme}://{host}/", f"{scheme}://{HIDDEN}@{host}/"):  # a file in a folder; of a pattern
            if login and url.startswith(place):
                return f"{scheme}://{resolve_variables(login)}@{host}/{url[len(place) :]}"
    return url
