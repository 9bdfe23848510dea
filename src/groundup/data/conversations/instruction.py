"""Data of instruction tuning: conversations are split, checked and tokenized. Only the assistant's turns are labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from groundup.core.console import Console
from groundup.core.plural import pluralize
from groundup.core.types import Example
from groundup.data.conversations.checks import require_own_template, require_raw_text, require_trainable
from groundup.data.conversations.encoded import Encoded, to_arrays, trained_tokens
from groundup.data.conversations.reading import ConversationSplit, InstructionSettings, split_by_hash
from groundup.data.conversations.replay import replay_examples
from groundup.data.token_views import TokenView, role_table, view_conversation

if TYPE_CHECKING:
    from groundup.data.conversations.packing import ExampleLoader
    from groundup.tokenizer import ChatTemplate, Tokenizer

_COUNTED = 1000  # Maximum number of examples from which the number of tokens per role is computed.


@dataclass(frozen=True, slots=True, eq=False)
class InstructionData:
    """Conversations of instruction tuning, and the token ids of the training examples.

    Attributes:
        train: Training conversations.
        validation: Validation conversations. The list is empty if the run does not select the best checkpoint.
        test: Test conversations.
        encoded: Token ids of the training examples, each with a mask of the trained tokens.
        replay_examples: Token ids and masks of the replay data, which is mixed into the training examples.
        template: Chat template.
        tokenizer: Tokenizer of the model.
        context: Maximum number of tokens per example.
        split: The training and test conversations as they were read, with statistics.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    encoded: list[Encoded]
    replay_examples: list[Encoded]
    template: ChatTemplate
    tokenizer: Tokenizer
    context: int
    split: ConversationSplit

    @classmethod
    def encode(
        cls,
        split: ConversationSplit,
        settings: InstructionSettings,
        template: ChatTemplate,
        tokenizer: Tokenizer,
        context: int,
        console: Console,
        *,
        validation: bool = False,
    ) -> Self:
        """Tokenize conversations with a chat template.

        Args:
            split: Training and test conversations.
            settings: Settings of the data.
            template: Chat template.
            tokenizer: Tokenizer of the model.
            context: Maximum number of tokens per example.
            console: Console that prints progress and warnings.
            validation: Whether to hold out a part of the training examples for selecting the best checkpoint.

        Raises:
            DataError: The model cannot learn from the examples; see `require_trainable`.
            FormatError: The template does not belong to the tokenizer.
        """
        train, held_out = split.train, list[Example]()
        if validation:
            train, held_out = split_by_hash(
                train, fraction=settings.test_fraction, max_held_out=settings.max_test_examples
            )
        encoded = _encoded(train, template, tokenizer, console)
        require_trainable(encoded, template, tokenizer, context, cut=settings.truncate)
        mixed = replay_examples(settings.replay, settings.replay_fraction, encoded, template, tokenizer, context)
        if mixed:
            share = f"{settings.replay_fraction:.0%} of the trained tokens"
            console.note(f"Replay: {pluralize(len(mixed), 'sequence')} from {settings.replay}, {share}.")
        return cls(train, held_out, split.test, encoded, mixed, template, tokenizer, context, split)

    @property
    def longest(self) -> int:
        """Number of tokens in the longest example, including replay data."""
        return max(len(ids) for ids, _ in (*self.encoded, *self.replay_examples))

    def loader(self, context_length: int, rows: int, *, cut: bool, **options: Any) -> ExampleLoader:
        """Return a loader that packs the examples into rows. `options` are further arguments of `ExampleLoader`."""
        from groundup.data.conversations.packing import ExampleLoader

        return ExampleLoader(
            [*self.encoded, *self.replay_examples],
            context_length=context_length,
            batch_size=rows,
            pad_id=self.tokenizer.pad_id,
            cut=cut,
            **options,
        )

    def show(self, console: Console, *, max_shown: int = 1) -> None:
        """Print some conversations, and a table with the number of trained tokens per role."""
        counted = self.token_views(_COUNTED)
        console.table(f"Tokens of {len(counted):,} of {len(self.train):,} examples", *role_table(counted))
        for number, each in enumerate(counted[:max_shown], 1):
            title = "Example" if max_shown == 1 else f"Example {number}"
            console.sample(f"{title} (trained tokens in [[ ]])", each.parts())

    def token_views(self, max_shown: int) -> list[TokenView]:
        """Return up to `max_shown` evenly spaced training examples with the role of each token, for display."""
        some = self.train[:: max(1, -(-len(self.train) // max_shown))]
        return [view_conversation(self.template, self.tokenizer, e.messages, longest=self.context) for e in some]

    def facts(self, loader: ExampleLoader) -> dict[str, Any]:
        """Return statistics of the data as JSON values for the artifact."""
        found = self.split.found
        long = {} if loader.cut or not loader.too_long else {"longer than the context": loader.too_long}
        examples = {"train": loader.n_examples - len(self.replay_examples), "test": len(self.test)}
        return {
            "examples": examples | {"dropped": dict(found.dropped) | long},
            "replayed": {"examples": len(self.replay_examples), "tokens": trained_tokens(self.replay_examples)},
            "changed": dict(found.changed),
            "columns": found.columns,
        }


def _encoded(
    examples: Sequence[Example], template: ChatTemplate, tokenizer: Tokenizer, console: Console
) -> list[Encoded]:
    """Check and tokenize conversations. Print a warning if their text contains names of special tokens."""
    typed = require_raw_text(examples, tokenizer)
    if typed:
        which = "1 example contains" if typed == 1 else f"{typed:,} examples contain"
        console.warn(f"{which} the name of a special token, which is tokenized as ordinary text.")
    require_own_template(template, tokenizer, examples)
    encoded = []
    with console.progress("tokenizing", len(examples), "examples") as bar:
        for example in examples:
            encoded.append(to_arrays(*template.encode_labeled(example.messages)))
            bar.advance(1)
    return encoded
