"""Convert gitleaks' rules into the table that `groundup.corpus.privacy` masks secrets by.

    python tools/gitleaks_table.py GITLEAKS_TOML --license LICENSE --revision COMMIT

GITLEAKS_TOML is `config/gitleaks.toml` of https://github.com/gitleaks/gitleaks (MIT), LICENSE its license. Writes
`src/groundup/corpus/privacy/gitleaks.json` and prints the rules that are left out, with the reason.

What changes on the way:

- Go's syntax becomes Python's; `(?i)` in the middle of a pattern gets a group of its own.
- gitleaks wants a quote, a blank or the end of the line behind a secret. Prose has "." and ",": that end is taken off.
- `\\w{0,50}(?:service) = (value)` becomes a service's words and a value. A value that begins with at least three fixed
  characters needs no service: it is a key wherever it is.
- Unlimited repetitions get a limit, so that the time of a search stays linear in the length of the text.
- Rules for a kind of file (path), and those that `secrets.py` covers by its own code, are left out.
"""

from __future__ import annotations

import argparse
import json
import re
import re._constants as op
import re._parser as parser
import tomllib
import warnings
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "src/groundup/corpus/privacy/gitleaks.json"
OWN = {  # covered by code: secrets.py
    "curl-auth-header": "Authorization headers",
    "curl-auth-user": "passwords of commands",
    "generic-api-key": "assignments",
    "hashicorp-tf-password": "assignments",
    "private-key": "private keys",
    "sidekiq-sensitive-url": "passwords in URLs",
}
FILES = {  # for one kind of file, and the file's name is not known once text is masked
    "kubernetes-secret-yaml": "any base64 in a YAML file of kind Secret",
    "nuget-config-password": "any text in a NuGet.Config",
}
# Secrets whose fixed characters are not at their beginning: how they begin, for RE2.
BEGINNINGS = {
    "azure-ad-client-secret": r"[a-zA-Z0-9_~.]{3}[0-9]Q~",
    "facebook-access-token": r"[0-9]{15,16}(?:\||%)[0-9A-Za-z_\-]",
    "hashicorp-tf-api-token": r"[A-Za-z0-9]{14}\.atlasv1\.",
    "maxmind-license-key": r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk",
    "microsoft-teams-webhook": r"https://[a-z0-9]+\.webhook\.office\.com/webhookb2/",
    "slack-webhook-url": r"hooks\.slack\.com/(?:services|workflows|triggers)/",
}
LONGEST = 4096  # characters of an unlimited repetition
LONGEST_BEGINNING = 20
HEAD = r"""(?:[ \t\w.-]{0,20})[\s'"]{0,3}"""
ASSIGN = r"""(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)[\x60'"\s=]{0,5}"""
ENDS = (
    r"""(?:[\x60'"\s;]|\\[nr]|$|\b)""",
    r"""(?:[\x60'"\s;]|\\[nr]|$)""",
    r"""(?:[^\w-]|\z)""",
    r"""(?:[^a-zA-Z0-9+/]|\z)""",
    r"""(?:$|[\\'"\x60\s<),])""",
    r"""\b""",
)
STARTS = (r"""(?:^|[\\'"\x60\s>=:(,)])""", r"""(?:https?://)?""", r"""\b""")


def python_syntax(pattern: str) -> str:
    """A Go pattern in Python's syntax; `(?i)` counts to the end of the group that it stands in."""
    for go, python in ((r"\x60", "`"), ("[[:alnum:]]", "[a-zA-Z0-9]"), (r"\z", r"\Z"), ("(?s:.)", r"[\s\S]")):
        pattern = pattern.replace(go, python)
    pattern = re.sub(r"\(\?P<\w+>", "(?:", pattern)
    out, opened, at = "", [0], 0
    while at < len(pattern):
        piece = re.match(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?i\)|.", pattern[at:], re.DOTALL)
        assert piece is not None
        text = piece[0]
        at += len(text)
        if text == "(?i)":
            text = "(?i:"
            opened[-1] += 1
        elif text == "(":
            opened.append(0)
        elif text == ")":
            text = ")" * (opened.pop() + 1)
        out += text
    return out + ")" * opened.pop()


def beginnings(tree: Any) -> tuple[list[str], bool]:
    """The fixed characters that a parsed pattern may begin with, and whether they are all of it."""
    found = [""]
    for kind, value in tree:
        whole = True
        if kind is op.LITERAL:
            more = [chr(value)]
        elif kind is op.AT:
            continue
        elif kind is op.SUBPATTERN:
            more, whole = beginnings(value[3])
        elif kind is op.BRANCH:
            parts = [beginnings(branch) for branch in value[1]]
            more, whole = [text for texts, _ in parts for text in texts], all(end for _, end in parts)
        elif kind is op.IN and len(value) <= 6 and all(each is op.LITERAL for each, _ in value):
            more = [chr(code) for _, code in value]
        else:
            return found, False
        found = [text + end for text in found for end in more]
        if not whole:
            return found, False
    return found, True


def bare(pattern: str) -> str:
    """A pattern without what gitleaks wants around a secret, in Python's syntax."""
    folded = pattern.startswith("(?i)")
    pattern = pattern.removeprefix("(?i)")
    for end in ENDS:
        pattern = pattern.removesuffix(end)
    for start in STARTS:
        pattern = pattern.removeprefix(start)
    pattern = limited(python_syntax(pattern))
    return f"(?i:{pattern})" if folded else pattern


def limited(pattern: str) -> str:
    """The pattern with a limit to what it repeats, and with groups that capture nothing."""
    pattern = re.sub(r"\{(\d+),\}", lambda found: f"{{{found[1]},{max(LONGEST, int(found[1]))}}}", pattern)
    pattern = re.sub(r"(?<=[\])\w])\+(?![^\[]*\])", f"{{1,{LONGEST}}}", pattern)
    return re.sub(r"(?<!\\)\((?!\?)", "(?:", pattern)


def convert(rule: dict[str, Any]) -> tuple[str, dict[str, Any]] | str:
    """The entry of a rule and the list it belongs to; or why there is none."""
    name, pattern = rule["id"], rule.get("regex")
    if pattern is None:
        return "no pattern: finds files by name"
    if name in OWN or name in FILES:
        return OWN.get(name) or FILES[name]
    entry: dict[str, Any] = {"id": name, "entropy": rule.get("entropy", 0)}
    if name == "sourcegraph-access-token":  # the alternative is any 40 hexadecimal digits
        pattern = r"(?i)sgp_(?:(?:[a-f0-9]{16}|local)_)?[a-f0-9]{40}"
    if name == "vault-service-token":  # its allowlist: letters alone are a name, such as s.getElementsByClassName
        pattern = pattern.replace(r"s\.(?i:[a-z0-9]{24})", r"s\.(?=[A-Za-z]{0,23}[0-9])[A-Za-z0-9]{24}")
    words = None
    if (at := pattern.find(HEAD)) >= 0:
        words = re.sub(r"^.*\[\\w\.-\]\{0,50\}\?\(\?:", "", pattern[:at]).removesuffix(")")
        rest = pattern[at + len(HEAD) :].removeprefix(")").removeprefix(ASSIGN)
        first, either, other = rest.partition("|\\b(ATATT3")  # the only rule with a second form
        pattern = ("(?i)" if "(?i)" in pattern[:at] else "") + first
        if either:
            entry["also"] = bare("(ATATT3" + other)
    entry["pattern"] = bare(pattern)
    begins = sorted({text[:LONGEST_BEGINNING].lower() for text in beginnings(parser.parse(entry["pattern"]))[0]})
    if name in BEGINNINGS:
        return "forms", entry | {"like": BEGINNINGS[name]}
    if all(len(text) >= (3 if words else 2) for text in begins):
        return "forms", entry | {"begins": begins}
    if words is None:
        return "no fixed characters"
    return "services", entry | {"words": python_syntax(words)}


def main() -> None:
    """Convert, write, report."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("config", type=Path)
    arguments.add_argument("--license", type=Path, required=True)
    arguments.add_argument("--revision", required=True)
    given = arguments.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # "[[" and "||" in Go's classes
    rules = tomllib.loads(given.config.read_text())["rules"]
    table: dict[str, Any] = {"forms": [], "services": []}
    for rule in rules:
        converted = convert(rule)
        if isinstance(converted, str):
            print(f"left out: {rule['id']}: {converted}")
            continue
        kind, entry = converted
        if also := entry.pop("also", None):
            table["forms"].append({"id": rule["id"], "entropy": 3.5, "pattern": also, "begins": ["atatt3"]})
        for pattern in (entry["pattern"], entry.get("words", "")):
            re.compile(pattern)
        table[kind].append(entry)
    header = {
        "source": f"https://github.com/gitleaks/gitleaks, config/gitleaks.toml, {given.revision}",
        "made by": "tools/gitleaks_table.py; do not edit",
        "license": given.license.read_text().strip().splitlines(),
    }
    TARGET.write_text(json.dumps(header | table, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(rules)} rules: {len(table['forms'])} forms, {len(table['services'])} values of services")


if __name__ == "__main__":
    main()
