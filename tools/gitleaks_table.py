r"""Convert the rules of gitleaks into the table of secrets for `groundup.corpus.privacy`.

    python tools/gitleaks_table.py GITLEAKS_TOML --license LICENSE --revision COMMIT

GITLEAKS_TOML is `config/gitleaks.toml` of https://github.com/gitleaks/gitleaks (MIT), and LICENSE is its license file.
The tool writes `src/groundup/corpus/privacy/gitleaks.json`. The tool prints which rules it skips and why.

The tool changes the rules as follows:

- It converts Go syntax to Python syntax. An `(?i)` in the middle of a pattern becomes a group.
- gitleaks requires a quote, a space or the end of the line after a secret. The tool removes this requirement, because
  a secret in a text can also be followed by "." or ",".
- It splits `\w{0,50}(?:service) = (value)` into the names of services and a value pattern. If values have a fixed
  prefix of at least three characters, the names of services are not needed.
- It limits unlimited repetitions, so that the search time is linear in the length of the text.
- It skips rules that apply only to specific files, and rules that the code in `secrets.py` already covers.
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
COVERED = {  # Rules that the code in secrets.py covers, and the kind of secret that they find.
    "curl-auth-header": "Authorization headers",
    "curl-auth-user": "passwords of commands",
    "generic-api-key": "assignments",
    "hashicorp-tf-password": "assignments",
    "private-key": "private keys",
    "sidekiq-sensitive-url": "passwords in URLs",
}
FILE_RULES = {  # Rules that apply to one kind of file. They are skipped because the masker does not get file names.
    "kubernetes-secret-yaml": "any base64 in a YAML file of kind Secret",
    "nuget-config-password": "any text in a NuGet.Config",
}
# RE2 patterns for the beginnings of secrets that do not have a fixed prefix.
BEGINNINGS = {
    "azure-ad-client-secret": r"[a-zA-Z0-9_~.]{3}[0-9]Q~",
    "facebook-access-token": r"[0-9]{15,16}(?:\||%)[0-9A-Za-z_\-]",
    "hashicorp-tf-api-token": r"[A-Za-z0-9]{14}\.atlasv1\.",
    "maxmind-license-key": r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk",
    "microsoft-teams-webhook": r"https://[a-z0-9]+\.webhook\.office\.com/webhookb2/",
    "slack-webhook-url": r"hooks\.slack\.com/(?:services|workflows|triggers)/",
}
MAX_REPETITION = 4096  # This limit replaces an unlimited number of repetitions.
MAX_PREFIX_LENGTH = 20
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
    """Convert a Go pattern to Python syntax. An `(?i)` applies until the end of its group."""
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
    """Return the fixed prefixes with which matches of a pattern can begin, and whether these are complete matches."""
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
    """Convert a pattern to Python syntax, and remove the context that gitleaks requires before and after a secret."""
    folded = pattern.startswith("(?i)")
    pattern = pattern.removeprefix("(?i)")
    for end in ENDS:
        pattern = pattern.removesuffix(end)
    for start in STARTS:
        pattern = pattern.removeprefix(start)
    pattern = limited(python_syntax(pattern))
    return f"(?i:{pattern})" if folded else pattern


def limited(pattern: str) -> str:
    """Limit the repetitions of a pattern, and make its groups non-capturing."""
    pattern = re.sub(r"\{(\d+),\}", lambda found: f"{{{found[1]},{max(MAX_REPETITION, int(found[1]))}}}", pattern)
    pattern = re.sub(r"(?<=[\])\w])\+(?![^\[]*\])", f"{{1,{MAX_REPETITION}}}", pattern)
    return re.sub(r"(?<!\\)\((?!\?)", "(?:", pattern)


def convert(rule: dict[str, Any]) -> tuple[str, dict[str, Any]] | str:
    """Return the name of the list that a rule belongs to and the entry of the rule, or the reason to skip the rule."""
    name, pattern = rule["id"], rule.get("regex")
    if pattern is None:
        return "no pattern, only a file name"
    if name in COVERED or name in FILE_RULES:
        return COVERED.get(name) or FILE_RULES[name]
    entry: dict[str, Any] = {"id": name, "entropy": rule.get("entropy", 0)}
    if name == "sourcegraph-access-token":  # omit the alternative: any 40 hex digits
        pattern = r"(?i)sgp_(?:(?:[a-f0-9]{16}|local)_)?[a-f0-9]{40}"
    if name == "vault-service-token":  # without a digit, the match is a name in code
        pattern = pattern.replace(r"s\.(?i:[a-z0-9]{24})", r"s\.(?=[A-Za-z]{0,23}[0-9])[A-Za-z0-9]{24}")
    words = None
    if (at := pattern.find(HEAD)) >= 0:
        words = re.sub(r"^.*\[\\w\.-\]\{0,50\}\?\(\?:", "", pattern[:at]).removesuffix(")")
        rest = pattern[at + len(HEAD) :].removeprefix(")").removeprefix(ASSIGN)
        first, either, other = rest.partition("|\\b(ATATT3")  # the only rule with an alternative
        pattern = ("(?i)" if "(?i)" in pattern[:at] else "") + first
        if either:
            entry["also"] = bare("(ATATT3" + other)
    entry["pattern"] = bare(pattern)
    begins = sorted({text[:MAX_PREFIX_LENGTH].lower() for text in beginnings(parser.parse(entry["pattern"]))[0]})
    if name in BEGINNINGS:
        return "forms", entry | {"like": BEGINNINGS[name]}
    if all(len(text) >= (3 if words else 2) for text in begins):
        return "forms", entry | {"begins": begins}
    if words is None:
        return "no fixed prefix"
    return "services", entry | {"words": python_syntax(words)}


def main() -> None:
    """Convert the rules, write the table and print the skipped rules."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("config", type=Path)
    arguments.add_argument("--license", type=Path, required=True)
    arguments.add_argument("--revision", required=True)
    given = arguments.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # Go's character classes contain "[[" and "||".
    rules = tomllib.loads(given.config.read_text())["rules"]
    table: dict[str, Any] = {"forms": [], "services": []}
    for rule in rules:
        converted = convert(rule)
        if isinstance(converted, str):
            print(f"skipped: {rule['id']}: {converted}")
            continue
        kind, entry = converted
        if also := entry.pop("also", None):
            table["forms"].append({"id": rule["id"], "entropy": 3.5, "pattern": also, "begins": ["atatt3"]})
        for pattern in (entry["pattern"], entry.get("words", "")):
            re.compile(pattern)
        table[kind].append(entry)
    header = {
        "source": f"https://github.com/gitleaks/gitleaks, config/gitleaks.toml, {given.revision}",
        "generated by": "tools/gitleaks_table.py; do not edit",
        "license": given.license.read_text().strip().splitlines(),
    }
    TARGET.write_text(json.dumps(header | table, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(rules)} rules: {len(table['forms'])} formats, {len(table['services'])} formats of services")


if __name__ == "__main__":
    main()
