"""Detection of secrets by their context.

Context identifies private keys, tokens, keys in connection strings, and passwords and keys that are assigned to a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from groundup.corpus.privacy.randomness import may_be_secret
from groundup.corpus.privacy.spans import Finder, NormalizedText, Span

_JWT = re.compile(r"(?<![\w\-])eyJ[\w\-]{8,4096}\.[\w\-]{8,16384}(?:\.[\w\-]{0,4096}){0,3}")
_BEARER = re.compile(
    r"(?:\b[Bb]earer|\bBEARER|[Aa]uthorization:\s{0,3}(?:[Bb]asic|[Tt]oken))\s{1,3}([\w.~+/\-]{16,4096}={0,2})"
)

# Azure keys and signatures do not have a specific format, so they are recognized by the text before them.
_CONNECTION_KEY = re.compile(
    r"(?:(?<=AccessKey=)|(?<=AccountKey=))[A-Za-z0-9+/]{40,90}={0,2}|(?<=sig=)[A-Za-z0-9%+/]{40,120}=?"
)

_PEM_BEGIN = re.compile(r"-----BEGIN([ A-Z0-9_\-]{0,100}PRIVATE KEY(?: BLOCK)?)-----")
_PEM_END = re.compile(r"KEY(?: BLOCK)?-----|-----BEGIN")
_PEM_BODY = re.compile(r"(?:\s|\\n)*(?:[A-Za-z0-9+/=:,\- ]{1,100}(?:\r?\n|\\n|\s|$)){0,200}")
_MIN_PEM_BODY = 40  # minimum number of base64 characters; a line of a PEM file has 64
_MAX_PEM_LENGTH = 16_384  # characters; a PEM file with a 16,384-bit key has about 13,000 characters

# The user and password in a URL such as scheme://user:password@host.
_USERINFO = re.compile(r"[^\s/:@'\"<>]{0,64}:([^\s/'\"<>`]{1,128})@(?=[\w\[$%{])")

_WORDS = (
    r"(?<![a-zA-Z])pass|pass(?:words?|wd|phrase|code)|pwd|passw|contraseña|clave|senha|passwort|kennwort|mot de passe"
    r"|wachtwoord|hasło|lösenord|пароль"
)
_KEY_WORDS = (
    r"secret(?:[_\- ]?(?:access[_\- ]?)?key)?|api[_\- ]?(?:key|token|secret)"
    r"|access[_\- ]?(?:key|token)(?:[_\- ]?(?:id|secret))?|auth[_\- ]?(?:key|token)|client[_\- ]?secret"
    r"|private[_\- ]?key|signing[_\- ]?key|encryption[_\- ]?key|token|credential|account[_\- ]?key|license[_\- ]?key"
)
# Each match of `_WORDS` or `_KEY_WORDS` contains one of these words. The words allow a fast search before the regular
# expression is used.
_ASSIGNING_WORDS = (
    "pass", "key", "token", "secret", "pwd", "credential", "clave", "senha", "kennwort", "contraseña", "wachtwoord",
    "hasło", "lösenord", "пароль",
)  # fmt: skip
# Each match of `_WORDS` or `_KEY_WORDS` begins with one of these prefixes.
_PREFIXES = (
    "pass", "pwd", "secret", "token", "api", "access", "auth", "client", "private", "signing", "encryption",
    "credential", "account", "license", "contraseña", "clave", "senha", "kennwort", "mot de", "wachtwoord", "hasło",
    "lösenord", "пароль",
)  # fmt: skip
_ASSIGNED = re.compile(
    rf"(?:(?P<password>{_WORDS})|(?P<key>{_KEY_WORDS}))(?:_?\d{{1,2}}|_(?-i:(?!LEN|MIN|MAX|SIZE|POLICY|FIELD|TTL|EXP|TIMEOUT|FILE|PATH|URL)[A-Z]{{2,10}}))?(?![a-z])[\"'`*]{{0,2}}"
    r"(?P<sign>\s{0,3}(?::=|=>|==?|:)\s{0,3}|\s(?:is|was|ist|es|est)(?::|\s)\s?|\s{0,2}：\s{0,2})"
    r"(?:[bru]?(?P<quote>[\"'`])(?P<quoted>[^\"'`\n]{4,200})(?P=quote)"
    r"|(?P<bare>(?:(?!&\w+=)[^\s\"'`<>,;(){}\[\]]){4,300}))(?P<after>[(\[]?)",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"(?<![\w\-])(?:--(?:password|passwd|pass|passphrase|token|api-key|secret)"
    r"(?:=[\"']?|[ ](?=\S*[0-9!@#%^&*]))|(?:-u|--user)[ =][\"']?[\w.@\-]{1,64}:)"
    r"([^\s\"'<>$\-/(\[{][^\s\"'<>\[]{3,200})"
)
_OPTIONS = ("--pass", "--token", "--api-key", "--secret", "--user", " -u ")
# Values that are not secrets: variable names, type names, empty values and placeholders in examples.
_NO_SECRET = re.compile(
    r"(?:my|your|the|new|old|user|db|database|root|admin|some|enter|confirm|current|forgot|reset|change)?[ _\-.]?"
    r"(?:pass(?:word|wd|phrase|code)?s?|pwd|secrets?|tokens?|(?:api|access|secret|auth|private)?[ _\-]?keys?"
    r"|credentials?)"
    r"(?:[ _\-]?(?:here|hash|field|input|value|name|file|path|type|str|string|text|env|var|id|1|2))?"
    r"|none|null|nil|true|false|undefined|empty|required|optional|string|str|text|bytes|int|hidden|redacted|masked"
    r"|change[ _\-]?me|example|dummy|test|todo|tbd|n/a|place[ _-]?holder|default|hash(?:ed)?|x{3,}|\*+|\.+|•+|_+|-+|#+",
    re.IGNORECASE,
)
_EXAMPLE = re.compile(r"your|xxx|place[ _-]?holder|insert|changeme|dummy|goes[_\- ]?here", re.IGNORECASE)
_CAMEL = re.compile(r"[a-z]+(?:[A-Z][a-z]+)+\d{0,2}")  # a name such as defaultToConfig2
_SNAKE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+")
_REFERENCE = re.compile(
    r"[$%{<\[]|0x[0-9A-Fa-f]+$|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$|\w+::|[./~]|https?:|process\.env|os\.|\w+->"
)


def find_urls_with_passwords(view: NormalizedText) -> Iterator[Span]:
    """Yield passwords in URLs of the form "scheme://user:password@host"."""
    text = view.text
    at = text.find("://")
    while at >= 0:
        if (
            (found := _USERINFO.match(text, at + 3))
            and not _NO_SECRET.fullmatch(found[1])
            and found[1][0] not in "$<{%*"
        ):
            yield Span(*found.span(1), "password")
            yield Span(found.end(1), found.end(), "")
        at = text.find("://", at + 3)


def find_passwords_of_commands(view: NormalizedText) -> Iterator[Span]:
    """Yield passwords in command lines: after options such as `--password`, and after `curl --user name:`."""
    if ("--" in view.text or " -u " in view.text) and any(option in view.text for option in _OPTIONS):
        for found in _OPTION.finditer(view.text):
            if not _NO_SECRET.fullmatch(found[1]):
                yield Span(*found.span(1), "password")


def find_private_keys(view: NormalizedText) -> Iterator[Span]:
    """Yield private keys in PEM format or PGP armor, even if they are truncated."""
    text = view.text
    if "PRIVATE KEY" not in text:
        return
    at = 0
    while found := _PEM_BEGIN.search(text, at):
        footer = f"-----END{found[1]}-----"
        end = text.find(footer, found.end(), found.end() + _MAX_PEM_LENGTH)
        if end >= 0:
            at = end + len(footer)
        elif (other := _PEM_END.search(text, found.end(), found.end() + _MAX_PEM_LENGTH)) and other[0][0] == "K":
            at = other.end()
        else:
            body = _PEM_BODY.match(text, found.end(), found.end() + _MAX_PEM_LENGTH)
            at = body.end() if body else found.end()
            at = found.start() + len(text[found.start() : at].rstrip())
            if at - found.end() < _MIN_PEM_BODY:  # The text is prose about private keys.
                continue
        yield Span(found.start(), at, "private_key")


def find_connection_keys(view: NormalizedText) -> Iterator[Span]:
    """Yield keys in connection strings, and signatures in URLs (`sig=`)."""
    if "Key=" in view.text or "sig=" in view.text:
        yield from (
            Span(*found.span(), "api_key") for found in _CONNECTION_KEY.finditer(view.text) if may_be_secret(found[0])
        )


def find_tokens(view: NormalizedText) -> Iterator[Span]:
    """Yield JSON Web Tokens (JWT), and tokens after "Bearer" or "Authorization:"."""
    text = view.text
    if "eyJ" in text:
        yield from (Span(*found.span(), "token") for found in _JWT.finditer(text))
    if "bearer" in view.lowered or "authorization:" in view.lowered:
        for found in _BEARER.finditer(text):
            if may_be_secret(found[1]):
                yield Span(*found.span(1), "token")


def assignment_finder(*, passwords: bool, keys: bool) -> Finder:
    """Return a finder of values that are assigned to names such as `password`, `api_key` or `secret`.

    Args:
        passwords: Whether to find passwords.
        keys: Whether to find API keys and other secrets.
    """

    def find(view: NormalizedText) -> Iterator[Span]:
        text, lowered = view.text, view.lowered
        if not any(word in lowered for word in _ASSIGNING_WORDS):
            return
        for word in _PREFIXES:
            at = lowered.find(word)
            while at >= 0:
                if found := _ASSIGNED.match(text, at):
                    is_password = found["password"] is not None
                    if (passwords if is_password else keys) and _is_secret(text, found, is_password):
                        yield _value(found, "password" if is_password else "api_key")
                at = lowered.find(word, at + len(word))

    return find


def _value(found: re.Match[str], kind: str) -> Span:
    if found["quoted"] is not None:
        return Span(*found.span("quoted"), kind)
    start, end = found.span("bare")
    # In a sentence such as "my password is swordfish1!", the last "!" is not part of the password.
    ending = ".:!?" if found["sign"].strip(" :").isalpha() else ".:"
    return Span(start, end - len(found["bare"]) + len(found["bare"].rstrip(ending)), kind)


def _is_secret(text: str, found: re.Match[str], is_password: bool) -> bool:
    quoted = found["quoted"]
    value = quoted if quoted is not None else found["bare"].rstrip(".:")
    if (
        _NO_SECRET.fullmatch(value.rstrip("?!"))
        or not any(map(str.isalnum, value))
        or _REFERENCE.match(value)
        or len(value) < 4
        or " " in value
    ):
        return False
    if quoted is None and (
        found["after"] or "==" in value or _SNAKE.fullmatch(value) or _CAMEL.fullmatch(value)
    ):  # The value is an expression or a name, such as getpass(), tokens[0] or new_token2.
        return False
    mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
    if not is_password:
        return (
            mixed
            and not _EXAMPLE.search(value)
            and len(value) >= (12 if quoted is not None else 16)
            and may_be_secret(value)
        )
    sign = found["sign"]
    if quoted is not None:
        return mixed or not value.isalpha() or "=" in sign
    special = any(not character.isalnum() and character not in "-_./:" for character in value)
    if sign == "=" and (text[found.end() : found.end() + 1] == ";" or found["password"].isupper()):
        return True  # as in "Pwd=swordfish;" and "PASSWORD=swordfish"
    if value.isdigit():
        return sign.strip() in ("=", ":", "：") and len(value) >= 6
    return (mixed or special) and value[0] not in "-=" and len(value) >= 6
