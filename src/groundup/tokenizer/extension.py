"""A vocabulary that goes on where another one stopped: its merges stay, and new ones follow.

So text is first cut as the old tokenizer cuts it, and only then joined further; a model that knows the old tokens can
be given each new one as the sum of pieces that it knows.
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

FEWEST_SEEN = 2  # as in training: a pair that is seen once teaches nothing
_TEXTS_AT_ONCE = 256
_WORD_BEGIN = "▁"  # how SentencePiece's vocabularies write the space before a word

Pair = tuple[int, int]


def extend_tokenizer(
    tokenizer: Tokenizer, texts: Iterable[str], n_tokens: int, *, progress: Callable[[int], None] = lambda _: None
) -> Tokenizer:
    """Learn `n_tokens` further tokens from texts, by the algorithm that made the others (Sennrich et al. 2016).

    Their ids follow those of the old vocabulary, which all stay as they are.

    Args:
        texts: read once, as a stream.
        progress: called with the bytes of text read since the call before.

    Raises:
        ConfigError: no BPE vocabulary.
        DataError: the texts have too few pairs of tokens that are seen twice.
    """
    model = tokenizer.definition["model"]
    if model["type"] != "BPE":
        raise ConfigError(
            f"extend = {n_tokens:,} beside a {model['type']} tokenizer",
            rule="a vocabulary is extended by going on with the merges of BPE",
            fix="Leave extend out: text is then encoded with the vocabulary as it is.",
        )
    strings = {token_id: text for text, token_id in model["vocab"].items()}
    fixed = {token["id"] for token in tokenizer.definition["added_tokens"]}
    if model.get("byte_fallback"):  # "<0x0A>" stands for a byte, and would be five characters within another token
        fixed |= {model["vocab"][name] for byte in range(256) if (name := f"<0x{byte:02X}>") in model["vocab"]}
    pairs = _Pairs(_count_words(tokenizer, texts, progress), strings, fixed, taken=set(tokenizer.vocabulary))
    learned = list(itertools.islice(pairs.merges(tokenizer.vocab_size), n_tokens))
    if len(learned) < n_tokens:
        raise DataError(
            f"extend = {n_tokens:,}: the text gives {len(learned):,}",
            rule="every new token joins two that stand side by side at least twice in the text",
            fix=f"Collect more text, or give extend <= {len(learned):,}.",
        )
    return _with_merges(tokenizer, strings, learned)


def new_token_pieces(base: Tokenizer, extended: Tokenizer) -> dict[int, tuple[int, ...]]:
    """The ids that `extended` has beyond those of `base`, and for each the ids that `base` writes it with.

    Raises:
        ConfigError: `extended` is no extension of `base`: some text means other ids in it.
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
            f"a vocabulary of {extended.vocab_size:,} ids beside that of the model, of {base.vocab_size:,}",
            rule="a model goes on with the vocabulary that it has learned, or with an extension of it",
            fix="Encode the text with the model's own: groundup tokenize CORPUS --tokenizer MODEL --out DIR.",
        )
    made_of = {left + right: (left, right) for left, right in reversed(merges[kept:])}

    def pieces(text: str) -> Iterator[int]:
        if text in base.vocabulary:
            yield base.vocabulary[text]
        elif text in made_of:
            for part in made_of[text]:
                yield from pieces(part)
        else:  # a special token that was added by hand
            yield from base.encode(text)

    return {
        token_id: tuple(pieces(text))
        for text, token_id in sorted(extended.vocabulary.items(), key=lambda item: item[1])
        if text not in base.vocabulary
    }


def _count_words(
    tokenizer: Tokenizer, texts: Iterable[str], progress: Callable[[int], None]
) -> Counter[tuple[int, ...]]:
    """How often each word is seen that is more than one token: as ids, as long as merges reach."""
    begins = {i for text, i in tokenizer.definition["model"]["vocab"].items() if text.startswith(_WORD_BEGIN)}
    counts: Counter[tuple[int, ...]] = Counter()
    texts = iter(texts)
    while some := list(itertools.islice(texts, _TEXTS_AT_ONCE)):
        for ids in tokenizer.encode_words(some):
            counts.update(word for word in _cut(ids, begins) if len(word) > 1)
        progress(sum(len(text.encode()) for text in some))
    return counts


def _cut(ids: Sequence[int], begins: set[int]) -> Iterator[tuple[int, ...]]:
    # Where nothing cuts text into words, a sentence is one; no token may reach over a space, as in SentencePiece.
    cuts = [i for i, token_id in enumerate(ids) if i and token_id in begins]
    for start, end in itertools.pairwise([0, *cuts, len(ids)]):
        yield tuple(ids[start:end])


class _Pairs:
    """Words as rows of ids, and how often each pair of neighbours is seen in them."""

    def __init__(
        self, words: Mapping[tuple[int, ...], int], strings: dict[int, str], fixed: set[int], taken: set[str]
    ) -> None:
        """
        Args:
            words: ids of a word -> how often it is seen.
            strings: id -> how the vocabulary writes it; the new ones are added.
            fixed: ids that are never joined to others.
            taken: what no new token may be called.
        """
        self._words = [list(word) for word in words]
        self._seen = list(words.values())
        self._strings, self._fixed, self._taken = strings, fixed, taken
        self._counts: Counter[Pair] = Counter()
        self._where: defaultdict[Pair, set[int]] = defaultdict(set)
        for number, word in enumerate(self._words):
            for pair in itertools.pairwise(word):
                self._counts[pair] += self._seen[number]
                self._where[pair].add(number)

    def merges(self, first_id: int) -> Iterator[Pair]:
        """The most frequent pair, joined everywhere; then the one that is most frequent after that, and so on."""
        queue = [(-count, pair) for pair, count in self._counts.items() if count >= FEWEST_SEEN]
        heapq.heapify(queue)
        new_id = first_id
        while queue:
            count, pair = heapq.heappop(queue)
            now = self._counts[pair]
            if now != -count:  # it was counted before others were joined
                if now >= FEWEST_SEEN:
                    heapq.heappush(queue, (-now, pair))
                continue
            text = "".join(self._strings.get(token_id, "") for token_id in pair)
            if text in self._taken or self._fixed.intersection(pair):
                continue
            self._strings[new_id] = text
            self._taken.add(text)
            for other in self._join(pair, new_id):
                if self._counts[other] >= FEWEST_SEEN:
                    heapq.heappush(queue, (-self._counts[other], other))
            yield pair
            new_id += 1

    def _join(self, pair: Pair, new_id: int) -> set[Pair]:
        """Join a pair in every word; returns the pairs that this made."""
        made: set[Pair] = set()
        for number in self._where.pop(pair):
            word, seen = self._words[number], self._seen[number]
            joined = _joined(word, pair, new_id)
            for old in itertools.pairwise(word):
                self._counts[old] -= seen
            for new in itertools.pairwise(joined):
                self._counts[new] += seen
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
    # The library numbers an added token that the model's vocabulary lacks by that vocabulary's size: once this grows,
    # by another id than it has. So they are written into it.
    model["vocab"] |= {token["content"]: token["id"] for token in definition["added_tokens"]}
    model["vocab"] |= {strings[token_id]: token_id for token_id in strings if token_id >= tokenizer.vocab_size}
    model["merges"] += [[strings[left], strings[right]] for left, right in learned]
    return tokenizer.with_definition(definition)
