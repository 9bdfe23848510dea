"""Detection of sentences in documents that address a language model, such as "Ignore the previous instructions".

The text of documents is data. A sentence that this module finds is not shown to the model, and no answer is taken from
it. The patterns find common forms of prompt injection (Greshake et al. 2023, arXiv 2302.12173), not all of them. The
other defenses do not depend on them: a passage cannot contain control tokens or end its block, each passage is read
separately, and an answer must occur in the passage near words of the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from groundup.retrieval.chunks import Sentence

_MODEL = r"(?:assistants?|a\.?i\.?|chat ?bots?|language models?|llms?|sprachmodelle?|asistentes?|modèles? de langue)"
_GIVEN = (
    r"(?:instructions?|prompts?|rules?|questions?|guidelines|above|previous|prior|passages?|context"
    r"|anweisung\w*|regeln|fragen?|consignes?|instrucciones|preguntas?|istruzioni)"
)
_SAY = r"(?:answer|reply|respond|say|output|print|write|repeat|return|type|antworte|schreibe|sage|réponds|responde|di)"
_LITERAL = (
    r"(?:[\"'“”„«»`‘’]|the (?:exact )?(?:word|phrase|string|token|code|text|message)\b|(?-i:[A-Z0-9][A-Z0-9_-]{3,}))"
)
_PATTERNS = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"\b(?:ignore|disregard|forget|override|bypass|ignoriere\w*|vergiss|ignorez?|oublie[zr]?|ignora|olvida)\b.{{0,60}}\b{_GIVEN}\b",
        rf"\b(?:you are|act as|pretend|du bist|tu es|eres)\b.{{0,40}}\b{_MODEL}\b",
        r"\b(?:system|developer|admin)\s*(?:prompt|message|note|instructions?|override)\b|<\|?(?:system|im_start|user|assistant)",
        rf"\b{_MODEL}\b.{{0,40}}\b(?:must|should|shall|has to|have to|is required|are required|muss|soll)\b",
        rf"\b(?:note|attention|message|instructions?)\s+(?:to|for)\s+(?:the\s+|any\s+|all\s+)?{_MODEL}\b",
        rf"\b{_SAY}\b(?:.{{0,30}}\b(?:with|only|exactly|instead|mit|nur|avec|con)\b)?.{{0,15}}?{_LITERAL}",
        r"\banswers?\b.{0,20}\b(?:every|any|all|each)\b.{0,12}\bquestions?\b",
        r"\bif (?:you are |you're )?(?:asked|someone asks|anyone asks|the user asks)\b",
    )
]


def is_instruction(sentence: str) -> bool:
    """Return whether a sentence seems to give an instruction to a language model.

    Args:
        sentence: The sentence.
    """
    return any(pattern.search(sentence) for pattern in _PATTERNS)


def without_instructions(text: str, sentences: Sequence[Sentence]) -> Iterator[Sentence]:
    """Yield the sentences except instructions to a language model, and except the rest of their paragraphs.

    Args:
        text: The text.
        sentences: Its sentences.
    """
    skipping = False
    for sentence in sentences:
        skipping = skipping and not sentence.starts_paragraph
        skipping = skipping or is_instruction(text[sentence.start : sentence.end])
        if not skipping:
            yield sentence
