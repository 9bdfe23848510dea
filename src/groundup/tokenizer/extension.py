"""Extension of a BPE vocabulary with new merges, which are appended to the list of existing merges.

Text is first encoded with the old merges and then with the new merges. Each new token is therefore a sequence of old
tokens, and the embeddings of these old tokens can initialize the embedding of the new token.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from groundup.core.errors import ConfigError, DataError
from groundup.tokenizer.tokenizer import Tokenizer

MIN_PAIR_COUNT = 2  # as in training
_TEXTS_PER_BATCH = 256
_WORD_START = "▁"  # represents the space before a word in SentencePiece vocabularies

Pair = tuple[int, int]


def extend_tokenizer(
    tokenizer: Tokenizer, texts: Iterable[str], n_tokens: int, *, progress: Callable[[int], None] = lambda _: None
) -> Tokenizer:
    """Train new tokens on texts with BPE (Sennrich et al. 2016) and append them to the vocabulary.

    The ids of the old tokens do not change.

    Args:
        tokenizer: The tokenizer to extend.
        texts: Training texts. The iterable is read only once.
        n_tokens: Number of new tokens.
        progress: Function that is called with the number of bytes that were read since its last call.

    Returns:
        The extended tokenizer.

    Raises:
        ConfigError: The tokenizer is not a BPE tokenizer.
        DataError: The texts contain too few pairs of adjacent tokens that occur at least twice.
    """
    model = tokenizer.definition["model"]
    if model["type"] != "BPE":
        raise ConfigError(
            f"extend = {n_tokens:,} with a {model['type']} tokenizer",
            rule="only BPE vocabularies can be extended",
            fix="Omit extend. The text is then encoded with the existing vocabulary.",
        )
    strings = {token_id: text for text, token_id in model["vocab"].items()}
    fixed = {token["id"] for token in tokenizer.definition["added_tokens"]}
    if model.get("byte_fallback"):  # "<0x0A>" represents a byte, but inside a merged token it would be decoded as text.
        fixed |= {model["vocab"][name] for byte in range(256) if (name := f"<0x{byte:02X}>") in model["vocab"]}
    pairs = _Pairs(_count_words(tokenizer, texts, progress), strings, fixed, taken=set(tokenizer.vocabulary))
    learned = list(itertools.islice(pairs.merges(tokenizer.vocab_size), n_tokens))
    if len(learned) < n_tokens:
        raise DataError(
            f"extend = {n_tokens:,}: the text is enough for {len(learned):,}",
            rule="each new token merges two tokens that are adjacent at least twice in the text",
            fix=f"Collect more text, or set extend <= {len(learned):,}.",
        )
    return _with_merges(tokenizer, strings, learned)


def new_token_pieces(base: Tokenizer, extended: Tokenizer) -> dict[int, tuple[int, ...]]:
    """Return, for each new token of `extended`, the ids of the old tokens that encode the same text.

    Args:
        base: The old tokenizer.
        extended: The tokenizer that `extend_tokenizer` or `with_chat_tokens` returned.

    Returns:
        A dictionary from the id of each new token to ids of `base`.

    Raises:
        ConfigError: `extended` is not an extension of `base`, so it may encode a text with entirely different tokens.
    """
    old, new = base.definition["model"], extended.definition["model"]
    merges = list(map(tuple, new.get("merges", [])))
    kept = len(old.get("merges", []))
    same = (
        base.vocabulary.items() <= extended.vocabulary.items()
        and merges[:kept] == list(map(tuple, old.get("merges", [])))
        and all(base.definition[part] == extended.definition[part] for part in ("normalizer", "pre_tokenizer"))
    )
    if not same:
        raise ConfigError(
            f"tokenizer with {extended.vocab_size:,} ids, model with {base.vocab_size:,}",
            rule="training must continue with the model's tokenizer or an extension of it",
            fix="Encode the text with the model's tokenizer: groundup tokenize CORPUS --tokenizer MODEL --out DIR.",
        )
    made_of = {left + right: (left, right) for left, right in reversed(merges[kept:])}

    def pieces(text: str) -> Iterator[int]:
        if text in base.vocabulary:
            yield base.vocabulary[text]
        elif text in made_of:
            for part in made_of[text]:
                yield from pieces(part)
        else:  # The text is a special token that was added manually.
            yield from base.encode(text)

    return {
        token_id: tuple(pieces(text))
        for text, token_id in sorted(extended.vocabulary.items(), key=lambda item: item[1])
        if text not in base.vocabulary
    }


def _count_words(
    tokenizer: Tokenizer, texts: Iterable[str], progress: Callable[[int], None]
) -> Counter[tuple[int, ...]]:
    """Count the words that consist of more than one token. A word is represented by the tuple of its ids.

    Words are counted instead of texts, because merges do not cross word boundaries.
    """
    starts = {i for text, i in tokenizer.definition["model"]["vocab"].items() if text.startswith(_WORD_START)}
    counts: Counter[tuple[int, ...]] = Counter()
    texts = iter(texts)
    while batch := list(itertools.islice(texts, _TEXTS_PER_BATCH)):
        for ids in tokenizer.encode_words(batch):
            counts.update(word for word in _split_at_spaces(ids, starts) if len(word) > 1)
        progress(sum(len(text.encode()) for text in batch))
    return counts


def _split_at_spaces(ids: Sequence[int], starts: set[int]) -> Iterator[tuple[int, ...]]:
    # If a tokenizer has no pre-tokenizer, a whole sentence is one word. Such a sentence is split at spaces because, as
    # in SentencePiece, a token may contain a space only at its start.
    cuts = [i for i, token_id in enumerate(ids) if i and token_id in starts]
    for start, end in itertools.pairwise([0, *cuts, len(ids)]):
        yield tuple(ids[start:end])


class _Pairs:
    """The words of the training text as sequences of ids, and the counts of all pairs of adjacent ids."""

    def __init__(
        self, words: Mapping[tuple[int, ...], int], strings: dict[int, str], fixed: set[int], taken: set[str]
    ) -> None:
        """Count the pairs.

        Args:
            words: Dictionary from the ids of each word to the number of its occurrences.
            strings: Dictionary from each id to its token in the vocabulary. New tokens are added to this dictionary.
            fixed: Ids of tokens that are never merged.
            taken: Tokens that already exist in the vocabulary.
        """
        self._words = [list(word) for word in words]
        self._word_counts = list(words.values())
        self._strings, self._fixed, self._taken = strings, fixed, taken
        self._counts: Counter[Pair] = Counter()
        self._where: defaultdict[Pair, set[int]] = defaultdict(set)
        for number, word in enumerate(self._words):
            for pair in itertools.pairwise(word):
                self._counts[pair] += self._word_counts[number]
                self._where[pair].add(number)

    def merges(self, first_id: int) -> Iterator[Pair]:
        """Repeatedly merge the most frequent pair in all words and yield this pair."""
        queue = [(-count, pair) for pair, count in self._counts.items() if count >= MIN_PAIR_COUNT]
        heapq.heapify(queue)
        new_id = first_id
        while queue:
            count, pair = heapq.heappop(queue)
            now = self._counts[pair]
            if now != -count:  # The count in the queue is outdated, because other merges changed it.
                if now >= MIN_PAIR_COUNT:
                    heapq.heappush(queue, (-now, pair))
                continue
            text = "".join(self._strings.get(token_id, "") for token_id in pair)
            if text in self._taken or self._fixed.intersection(pair):
                continue
            self._strings[new_id] = text
            self._taken.add(text)
            for other in self._join(pair, new_id):
                if self._counts[other] >= MIN_PAIR_COUNT:
                    heapq.heappush(queue, (-self._counts[other], other))
            yield pair
            new_id += 1

    def _join(self, pair: Pair, new_id: int) -> set[Pair]:
        """Merge a pair in all words and return the new pairs that contain the merged token."""
        made: set[Pair] = set()
        for number in self._where.pop(pair):
            word, count = self._words[number], self._word_counts[number]
            joined = _joined(word, pair, new_id)
            for old in itertools.pairwise(word):
                self._counts[old] -= count
            for new in itertools.pairwise(joined):
                self._counts[new] += count
                if new_id in new:
                    self._where[new].add(number)
                    made.add(new)
            self._words[number] = joined
        del self._counts[pair]
        return made


def _joined(word: list[int], pair: Pair, new_id: int) -> list[int]:
    joined: list[int] = []
    for token_id in word:
        if joined and (joined[-1], token_id) == pair:
            joined[-1] = new_id
        else:
            joined.append(token_id)
    return joined


def _with_merges(tokenizer: Tokenizer, strings: Mapping[int, str], learned: Sequence[Pair]) -> Tokenizer:
    definition: dict[str, Any] = json.loads(json.dumps(tokenizer.definition))
    model = definition["model"]
    # The tokenizers library computes the ids of added tokens that are not in the vocabulary of the BPE model from the
    # size of this vocabulary, which changes here. To keep their ids, all added tokens are added to this vocabulary.
    model["vocab"] |= {token["content"]: token["id"] for token in definition["added_tokens"]}
    model["vocab"] |= {strings[token_id]: token_id for token_id in strings if token_id >= tokenizer.vocab_size}
    model["merges"] += [[strings[left], strings[right]] for left, right in learned]
    return tokenizer.with_definition(definition)
