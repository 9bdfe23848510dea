"""Count words that are not part of the field's vocabulary, in documentation, messages, docstrings and comments.

`python tools/prose.py [PATH ...]` prints the density for each kind of text, and fails if the total density exceeds the
limit in words.toml. `--list` also prints each match. `--sample N --seed S` prints random sentences that a reader can
judge.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import random
import re
import subprocess
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = ROOT / "tools" / "words.toml"
MAX_SENTENCE_WORDS = 30
_DATA = (
    "tests/data/",
    "src/groundup/apps/declared/",
    "src/groundup/corpus/privacy/accounts.py",
    "src/groundup/corpus/privacy/issuers.py",
    "src/groundup/corpus/quality/stop_words.py",
    "src/groundup/tokenizer/edge_cases.py",
    "tools/words.toml",
)
_DIRECTIVE = re.compile(r"#\s*(noqa|type:|mypy:|fmt:|pragma|!|-\*-)")
_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)
_NOT_PROSE = re.compile(r"`+[^`]*`+|\]\([^)]*\)|https?://\S+|<[^<>]{1,200}>|\{[^{}]*\}|[\w./-]*[/_][\w./-]*")
_MESSAGE = re.compile(r"[A-Za-z]{2,}[,;:]? [A-Za-z(]+,? [A-Za-z(\"']+")
_COMMENT = {
    ".toml": re.compile(r"(?m)^\s*#(.*)$|\s#\s(.*)$"),
    ".css": re.compile(r"/\*(.*?)\*/", re.DOTALL),
    ".h": re.compile(r"//([^\n]*(?:\n\s*//[^\n]*)*)|/\*(.*?)\*/", re.DOTALL),
    ".cpp": re.compile(r"//([^\n]*(?:\n\s*//[^\n]*)*)|/\*(.*?)\*/", re.DOTALL),
    ".html": re.compile(r">([^<>]+)<"),
}
_SCRIPT_PART = re.compile(
    r"//(?P<line>[^\n]*)|/\*(?P<block>.*?)\*/|\"(?P<double>(?:\\.|[^\"\\\n])*)\"|'(?P<single>(?:\\.|[^'\\\n])*)'"
    r"|`(?P<template>(?:\\.|[^`\\])*)`",
    re.DOTALL,
)


@dataclass(frozen=True)
class Text:
    """A passage of prose in a file.

    Attributes:
        path: Path of the file, relative to the root of the repository.
        line: Number of the first line of the passage. Lines are numbered from 1.
        kind: "documentation", "docstring", "comment" or "message".
        words: The text of the passage, including code and markup.
    """

    path: str
    line: int
    kind: str
    words: str


@dataclass(frozen=True)
class Match:
    """A phrase that should be replaced, and a suggestion for the replacement."""

    text: Text
    phrase: str
    instead: str


class WordList:
    """The phrases that words.toml lists, as compiled patterns."""

    def __init__(self, path: Path = WORDS) -> None:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        self.limit: float = table["max_per_1000_words"]
        self._allowed = re.compile("|".join(rf"\b(?:{phrase})\b" for phrase in table["allowed"]), re.IGNORECASE)
        self._patterns = [
            (re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])", re.IGNORECASE), instead)
            for pattern, instead in table["replace"].items()
        ]

    def matches(self, text: Text) -> list[Match]:
        """Return the phrases in a passage that should be replaced."""
        prose = self._allowed.sub(" ", _prose(text.words))
        return [
            Match(text, match.group(), instead)
            for pattern, instead in self._patterns
            for match in pattern.finditer(prose)
        ]


def _prose(words: str) -> str:
    """Remove code, links and placeholders from a passage."""
    return " ".join(_NOT_PROSE.sub(" ", words).split())


def count_words(words: str) -> int:
    """Return the number of words in a passage. Code does not count."""
    return len(re.findall(r"[A-Za-z][A-Za-z'’-]*", _prose(words)))


def sentences(words: str) -> list[str]:
    """Return the sentences of a passage that have at least four words."""
    joined = " ".join(words.split())
    return [part for part in re.split(r"(?<=[.!?;])\s+(?=[A-Z`\"(])", joined) if count_words(part) >= 4]


def _joined(node: ast.JoinedStr) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def _strings(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Yield the line, the value, and whether the string is a docstring, for each string in a Python module."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, _joined(node), False
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value, id(node) in docstrings


def _python(path: str, source: str) -> Iterator[Text]:
    shown = path.startswith("src/")  # Strings in other directories are data, not messages.
    for line, value, is_docstring in _strings(ast.parse(source)):
        if is_docstring:
            yield Text(path, line, "docstring", value)
        elif shown and _MESSAGE.search(value):
            yield Text(path, line, "message", value)
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
            continue
        row = token.start[0]
        if block and row == last + 1 and not token.line[: token.start[1]].strip():
            block.append(token.string.lstrip("# "))
        else:
            if block:
                yield Text(path, first, "comment", " ".join(block))
            block, first = [token.string.lstrip("# ")], row
        last = row
    if block:
        yield Text(path, first, "comment", " ".join(block))


def _markdown(path: str, source: str) -> Iterator[Text]:
    blank = _FENCE.sub(lambda fence: "\n" * fence.group().count("\n"), source)
    line = 1
    for paragraph in re.split(r"(\n\s*\n|\n(?=\s*(?:[-*#|]|\d+\.) ))", blank):
        if paragraph.strip():
            yield Text(path, line, "documentation", paragraph)
        line += paragraph.count("\n")


def _other(path: str, source: str) -> Iterator[Text]:
    suffix = Path(path).suffix
    for match in _COMMENT[suffix].finditer(source):
        words = re.sub(r"\n\s*//", " ", next((group for group in match.groups() if group), ""))
        if count_words(words) >= 2:
            kind = "message" if suffix == ".html" else "comment"
            yield Text(path, source.count("\n", 0, match.start()) + 1, kind, words)


def _script(path: str, source: str) -> Iterator[Text]:
    """Yield the comments and strings of a JavaScript file."""
    for match in _SCRIPT_PART.finditer(source):
        is_comment = match.lastgroup in ("line", "block")
        words = re.sub(r"\$\{[^{}]*\}", "{}", match[match.lastgroup or 0])
        if count_words(words) >= 2 if is_comment else _MESSAGE.search(words):
            kind = "comment" if is_comment else "message"
            yield Text(path, source.count("\n", 0, match.start()) + 1, kind, words)


def texts_of(path: Path) -> list[Text]:
    """Return the prose in a file of the repository. The list is empty if the file type does not contain prose."""
    name = path.resolve().relative_to(ROOT).as_posix()
    if name.startswith(_DATA):
        return []
    if path.suffix == ".py":
        return list(_python(name, path.read_text(encoding="utf-8")))
    if path.suffix == ".md":
        return list(_markdown(name, path.read_text(encoding="utf-8")))
    if path.suffix == ".js":
        return list(_script(name, path.read_text(encoding="utf-8")))
    if path.suffix in _COMMENT:
        return list(_other(name, path.read_text(encoding="utf-8")))
    return []


def repository_texts(paths: list[str]) -> list[Text]:
    """Return the prose in all files under the given paths, except files that git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [text for name in sorted(set(names)) if (ROOT / name).is_file() for text in texts_of(ROOT / name)]


def _print_sample(texts: list[Text], size: int, seed: int) -> None:
    pool = [(text, sentence) for text in texts for sentence in sentences(text.words)]
    for number, (text, sentence) in enumerate(random.Random(seed).sample(pool, min(size, len(pool))), start=1):
        print(f"{number}. [{text.kind}] {text.path}:{text.line}\n   {sentence}")


def main() -> int:
    """Print the density of words that should be replaced. Return 1 if the density exceeds the limit, otherwise 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", default=["."], help="files and directories [the repository]")
    parser.add_argument("--list", action="store_true", help="print each match")
    parser.add_argument("--long", action="store_true", help=f"print each sentence above {MAX_SENTENCE_WORDS} words")
    parser.add_argument("--sample", type=int, default=0, help="print N random sentences instead")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample [0]")
    arguments = parser.parse_args()
    texts = repository_texts(arguments.paths)
    if arguments.sample:
        _print_sample(texts, arguments.sample, arguments.seed)
        return 0
    words = WordList()
    matches = [match for text in texts for match in words.matches(text)]
    if arguments.list:
        for match in matches:
            print(f"{match.text.path}:{match.text.line}: {match.phrase!r}: write {match.instead}")
    long = [
        (text, sentence)
        for text in texts
        for sentence in sentences(text.words)
        if count_words(sentence) > MAX_SENTENCE_WORDS
    ]
    if arguments.long:
        for text, sentence in long:
            print(f"{text.path}:{text.line}: {count_words(sentence)} words: {sentence[:100]}")
    counts = Counter[str]()
    for text in texts:
        counts[text.kind] += count_words(text.words)
    total = sum(counts.values())
    density = 1000 * len(matches) / max(1, total)
    by_kind = Counter(match.text.kind for match in matches)
    result = {
        "words": total,
        "per_1000_words": round(density, 2),
        "by_kind": {kind: round(1000 * by_kind[kind] / count, 2) for kind, count in sorted(counts.items()) if count},
        "sentences_over_30_words": len(long),
    }
    print(json.dumps(result))
    if density > words.limit:
        print(f"{density:.2f} phrases per 1,000 words are on the list of tools/words.toml, more than {words.limit}.")
        print("Run python tools/prose.py --list and write what it suggests.")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
