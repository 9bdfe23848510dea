"""What stages that tune have in common before step 1: it is checked what will be trained, and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.artifact import Artifact, record
from groundup.core.console import Console

if TYPE_CHECKING:
    from groundup.core.types import Example
    from groundup.data.encoded import Encoded
    from groundup.data.xray import Seen
    from groundup.tokenizer import ChatTemplate, Tokenizer

_COUNTED = 1000  # examples, from everywhere among them
_ON_THE_PAGE = 40


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Conversations to be trained on.

    Attributes:
        window: tokens of each that are read.
        cut: longer ones lose their end.
    """

    template: ChatTemplate
    tokenizer: Tokenizer
    examples: Sequence[Example]
    window: int
    cut: bool

    def require_sound(self, console: Console) -> list[Encoded]:
        """The ids of each example and which of them are trained, once nothing forbids to train on them.

        Raises:
            DataError, FormatError: see `groundup.data.soundness`.
        """
        from groundup.data.encoded import compact
        from groundup.data.soundness import require_own_template, require_sound, require_words

        typed = require_words(self.examples, self.tokenizer)
        if typed:
            which = "1 example has" if typed == 1 else f"{typed:,} examples have"
            console.warn(
                f"{which} the name of a special token in its words: it stays text, and ends or begins nothing."
            )
        require_own_template(self.template, self.tokenizer, self.examples)
        encoded = []
        with console.progress("reading", len(self.examples), "examples") as bar:
            for example in self.examples:
                encoded.append(compact(*self.template.encode_labelled(example.messages)))
                bar.advance(1)
        require_sound(encoded, self.template, self.tokenizer, self.window, cut=self.cut)
        return encoded

    def tell(self, console: Console, *, most: int = 1) -> None:
        """Show some conversations, and how many tokens of each role there are and are trained."""
        from groundup.data.xray import table

        counted = self._seen(_COUNTED)
        console.table(f"Tokens of {len(counted):,} of {len(self.examples):,} examples", *table(counted))
        for number, seen in enumerate(counted[:most], 1):
            which = "one example" if most == 1 else f"example {number}"
            console.sample(f"{which}; what is trained stands in [[ ]]", seen.parts())

    def page(self, path: Path, told: str) -> Path:
        """Write the page with some conversations; returns its path."""
        return write_page(path, told, self._seen(_ON_THE_PAGE))

    def leave(self, out: Path, stage: str, keys: Mapping[str, Any], told: str, console: Console) -> Artifact:
        """Write the page beside what is not trained now, and say where."""
        return leave(out, stage, keys, told, self._seen(_ON_THE_PAGE), console)

    def _seen(self, most: int) -> list[Seen]:
        from groundup.data.xray import see

        some = self.examples[:: max(1, -(-len(self.examples) // most))]
        return [see(self.template, self.tokenizer, e.messages, longest=self.window) for e in some]


def leave(
    out: Path,
    stage: str,
    keys: Mapping[str, Any],
    told: str,
    seen: Sequence[Seen],
    console: Console,
    labels: Sequence[str] = (),
) -> Artifact:
    """Write the page beside what is not trained now, and say where."""
    path = write_page(out.with_name(f"{out.name}.xray.html"), told, seen, labels)
    console.note(f"{path}: what would be trained. Nothing was: leave --xray out to train.")
    return record(stage, keys, {}, path.parent, [path], {"summary": "shown, not trained"}, 0.0)


def write_page(path: Path, told: str, seen: Sequence[Seen], labels: Sequence[str] = ()) -> Path:
    """Write the page of some texts, told how they were read; returns its path."""
    from groundup.core.files import atomic_file
    from groundup.report.xray_page import render_xray

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(render_xray("What is trained", told, seen, labels), encoding="utf-8")
    return path
