"""Measure the recall of secret masking on samples of gitleaks' rules, and its false positives on ordinary text.

    git clone https://github.com/gitleaks/gitleaks ../gitleaks
    python -m benchmarks.collect.secret_samples ../gitleaks/config/gitleaks.toml [--lines 200000] [--show 20]

The benchmark uses each rule whose secret has a fixed prefix of at least three characters, or a fixed infix, as for
Azure. For each rule, 10 secrets are generated from the regular expression, with the entropy that the rule requires.
Each secret is inserted into 12 sentences, settings and commands. The secret is masked in a text if no 12 consecutive
characters of the secret remain. A rule counts as masked if its secrets are masked in at least half of the texts.
Ordinary text is the files of the Python standard library and of the installed packages, or `--negatives`. The
generators do not use the masker's own patterns.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import re._constants as op
import re._parser as parser
import string
import sys
import time
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.gitleaks_table import beginnings, python_syntax

from groundup.corpus.privacy import Masker, PrivacySettings
from groundup.corpus.privacy.randomness import entropy

CONTEXTS = [
    "My key is {}, please rotate it.", "We lost {}.", "Use `{}` for now", 'He wrote "{}" into the file.',
    '{{"k": "{}", "n": 1}}', "export X={}\n", "x: {}\n", "curl -H 'X-Key: {}' https://h.example/",
    "See https://h.example/a?x={}&y=1 for it.", "({})", "- **Value:** {}\n", "It was {}; I revoked it.",
]  # fmt: skip
INFIX = [
    "azure-ad-client-secret", "facebook-access-token", "hashicorp-tf-api-token", "maxmind-license-key",
    "microsoft-teams-webhook", "slack-webhook-url", "twilio-api-key",
]  # fmt: skip
WORD = string.ascii_letters + string.digits + "_"
PRINTABLE = "".join(map(chr, range(33, 127)))


class Rule:
    """A gitleaks rule, from which secrets are generated."""

    def __init__(self, rule: dict[str, Any]) -> None:
        self.name, self.entropy, group = rule["id"], rule.get("entropy", 0), rule.get("secretGroup", 0)
        self.tree = parser.parse(python_syntax(rule["regex"]))
        self._group = group
        secret = _group_of(self.tree, group or 1) or self.tree
        self.prefixes = beginnings(secret)[0]

    def draw(self, source: random.Random) -> str | None:
        """Generate a secret. Return None if none of 200 attempts has the entropy that the rule requires."""
        for _ in range(200):
            groups: dict[int, str] = {}
            whole = _text(self.tree, source, groups)
            found = groups.get(self._group) or next((groups[key] for key in sorted(groups) if groups[key]), whole)
            found = found if len(found) > 5 else whole  # a short group is only part of the secret
            if entropy(found) > self.entropy:
                return found
        return None


def _group_of(tree: Any, number: int) -> Any:
    for kind, value in tree:
        inside: list[Any] = []
        if kind is op.SUBPATTERN:
            if value[0] == number:
                return value[3]
            inside = [value[3]]
        elif kind is op.BRANCH:
            inside = list(value[1])
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            inside = [value[2]]
        for each in inside:
            if (found := _group_of(each, number)) is not None:
                return found
    return None


def _text(tree: Any, source: random.Random, groups: dict[int, str]) -> str:
    out = ""
    for kind, value in tree:
        if kind is op.LITERAL:
            out += chr(value)
        elif kind is op.ANY:
            out += "."  # In gitleaks' rules, this is usually an unescaped dot in a host name.
        elif kind is op.NOT_LITERAL:
            out += source.choice(PRINTABLE.replace(chr(value), ""))
        elif kind is op.IN:
            out += source.choice(_characters(value))
        elif kind is op.BRANCH:
            out += _text(source.choice(value[1]), source, groups)
        elif kind is op.SUBPATTERN:
            inside = _text(value[3], source, groups)
            if value[0] is not None:
                groups[value[0]] = inside
            out += inside
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            low, high = value[0], min(int(value[1]), value[0] + 40)
            out += "".join(_text(value[2], source, groups) for _ in range(source.randint(low, high)))
    return out


def _characters(items: Any) -> str:
    found, negated = "", False
    for kind, value in items:
        if kind is op.NEGATE:
            negated = True
        elif kind is op.LITERAL:
            found += chr(value)
        elif kind is op.RANGE:
            found += "".join(map(chr, range(value[0], value[1] + 1)))
        elif kind is op.CATEGORY:
            name = str(value)
            found += (
                PRINTABLE
                if "NOT_SPACE" in name
                else string.digits
                if "DIGIT" in name
                else WORD
                if "WORD" in name
                else " "
            )
    return (
        "".join(sorted(set(PRINTABLE) - set(found))) if negated else "".join(sorted({c for c in found if c.isascii()}))
    )


def recall(masker: Masker, config: Path, seed: int) -> dict[str, float]:
    """Return for each rule the fraction of texts in which the secret was masked."""
    source, shares = random.Random(seed), {}
    for table in tomllib.loads(config.read_text())["rules"]:
        if "regex" not in table:
            continue
        rule = Rule(table)
        if rule.name not in INFIX and (not rule.prefixes or min(map(len, rule.prefixes)) < 3):
            continue
        drawn = [secret for _ in range(10) if (secret := rule.draw(source))]
        hidden = [_is_hidden(masker, secret, context) for secret in drawn for context in CONTEXTS]
        shares[rule.name] = sum(hidden) / max(1, len(hidden))
    return shares


def _is_hidden(masker: Masker, secret: str, context: str) -> bool:
    out = masker.mask(context.format(secret)).text
    return secret not in out and not (
        len(secret) > 23 and any(secret[at : at + 12] in out for at in range(len(secret) - 12))
    )


def ordinary_texts(directory: Path | None, lines: int, seed: int) -> Iterator[str]:
    """Yield the contents of random files of code and prose, until they have `lines` lines in total."""
    roots = [directory] if directory else [Path(json.__file__).parents[1], Path(sys.prefix)]
    endings = {
        ".py",
        ".js",
        ".ts",
        ".json",
        ".md",
        ".txt",
        ".rst",
        ".html",
        ".css",
        ".c",
        ".h",
        ".toml",
        ".yaml",
        ".lock",
    }
    paths = sorted({path for root in roots for path in root.rglob("*") if path.suffix in endings and path.is_file()})
    random.Random(seed).shuffle(paths)
    count = 0
    for path in paths:
        if count >= lines:
            return
        if path.stat().st_size < 2_000_000 and "\0" not in (text := path.read_text(errors="replace")):
            count += text.count("\n") + 1
            yield text


def main() -> None:
    """Generate the texts, mask them, and print the recall and the false positives."""
    parser_ = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser_.add_argument("config", type=Path, help="config/gitleaks.toml")
    parser_.add_argument("--negatives", type=Path, help="directory of code and prose [the Python installation]")
    parser_.add_argument("--lines", type=int, default=200_000)
    parser_.add_argument("--seed", type=int, default=7)
    parser_.add_argument("--show", type=int, default=0, help="number of false positives to print [0]")
    arguments = parser_.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    masker = Masker(PrivacySettings(kinds=["api_key", "token", "password", "private_key"]))
    shares = recall(masker, arguments.config, arguments.seed)
    print("\n".join(f"{name}: {share:.2f}" for name, share in shares.items() if share < 0.95))
    lines, false = 0, []
    for text in ordinary_texts(arguments.negatives, arguments.lines, arguments.seed):
        lines += text.count("\n") + 1
        false += [re.sub(r"\s+", " ", text[max(0, s.start - 40) : s.end]) for s in masker.mask(text).spans]
    print("\n".join(false[: arguments.show]))
    full_masker = Masker(PrivacySettings())
    documents = [text[:2000] for text in ordinary_texts(arguments.negatives, 100_000, 3) if len(text) >= 2000]
    started = time.process_time()
    for document in documents:
        full_masker.mask(document)
    seconds = time.process_time() - started
    result = {
        "rules": len(shares),
        "rules_masked": sum(share >= 0.5 for share in shares.values()),
        "texts_masked": round(sum(shares.values()) / len(shares), 4),
        "lines": lines,
        "false_masks_per_2000_lines": round(2000 * len(false) / max(1, lines), 3),
        "documents_per_cpu_second": round(len(documents) / seconds),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
