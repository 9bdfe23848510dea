"""Detection of sentences in documents that address a language model, such as "Ignore the previous instructions".

The text of documents is data. A sentence that this module finds is not shown to the model, and no answer is taken from
it. The patterns find common forms of prompt injection (Greshake et al. 2023, arXiv 2302.12173), not all of them. The
other defenses do not depend on them: a passage cannot contain control tokens or end its block, each passage is read
separately, and an answer must occur in the passage near words of the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from groundup.retrieval.passages import Sentence

# "Assistant" before another noun, as in "assistant manager", is a person.
_MODEL = (
    r"(?:a\.?i\.?|chat ?bots?|language models?|llms?|sprachmodelle?|modèles? de langue|modelos? de lenguaje"
    r"|(?:assistants?|assistent(?:in|en)?|asistentes?|assistenti?)"
    r"(?! (?!(?:that|who|which|and|must|should|shall|has|have|is|are|der|die|qui|que|che)\b)\w))"
)
_GIVEN = (
    r"(?:instructions?|prompts?|rules?|questions?|guidelines|above|previous|prior|passages?|context"
    r"|anweisung\w*|regeln|fragen?|consignes?|instrucciones|preguntas?|istruzioni)"
)
_IGNORE = r"(?:ignore|disregard|forget|override|bypass|ignoriere\w*|vergiss|ignorez?|oublie[zr]?|ignora|olvida)"
_SAY = (
    r"(?<!-)(?:answer|reply|respond|say|output|print|write|repeat|return|type|antworte|schreibe|sage"
    r"|réponds|répondez|écris|responde|escribe|rispondi|scrivi)"
)
_WITH = r"(?:with|mit|avec|con)"
_ONLY = (
    r"(?:only|exactly|always|just|instead|nothing but|nur|immer|ausschließlich|uniquement|seulement|toujours"
    r"|solo|sólo|solamente|siempre|soltanto|sempre)"
)
# A quoted text, capitals such as BANANA-42, or a code of letters and digits such as banana-42.
# Codes begin at a word, and their length is limited, because long ones would take quadratic time.
_LITERAL = (
    r"(?:[\"“”„«»`]|(?<![\w-])(?-i:(?=[0-9_-]{0,40}[A-Z])[A-Z0-9][A-Z0-9_-]{3,40}"
    r"|(?=[\w-]{0,40}\d)(?=[\w-]{0,40}[A-Za-z])\w{1,40}-[\w-]+))"
)
_REPLY = (
    r"(?:answers?|repl(?:y|ies)|responses?|outputs?|summar(?:y|ies)|antwort(?:en)?|réponses?|respuestas?|rispost[ae])"
)
_YOUR = r"(?:your|every|each|all|any|deine|ihre|votre|ta|tu|su|tua)"
# A response that must be on a form or by a date is one of a person.
_ANSWERED = r"(?! (?:be )?(?:on|in|by|at|to|from|sent|made|submitted|returned|received)\b)"
_MUST = r"(?:must|should|shall|ha(?:s|ve) to|needs? to|will|muss|müssen|soll(?:en)?|doi(?:t|vent)|deben?|dev(?:e|ono))"
_ASKED = (
    r"(?:if (?:you are |you're )?(?:asked|someone asks|anyone asks|the user asks)"
    r"|wenn (?:du|jemand|man) (?:\w+ )?frag\w+|wenn du gefragt wirst"
    r"|si (?:on te|quelqu'un|l'utilisateur) demande|si te preguntan|se ti chiedono)"
)
_PATTERNS = [
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"(?<!never )(?<!not )(?<!n't )(?<!n')\b{_IGNORE}\b(?! of\b).{{0,60}}\b{_GIVEN}\b",
        rf"\b(?:you are|act as|pretend|du bist|tu es|eres|sei)\b.{{0,40}}\b{_MODEL}",
        r"^\W*(?:system|developer|admin)\s*(?:prompt|message|note|instructions?|override)\s*:",
        r"<\|(?:system|im_start|im_end|user|assistant)",
        rf"\b(?!assist|asist){_MODEL}\b.{{0,40}}\b(?:must|should|shall|ha(?:s|ve) to|(?:is|are) required|muss|soll)\b",
        rf"\bassistants? (?:must|should|shall|has to|have to) (?:\w+ )?{_SAY}\b",
        rf"\b(?:note|attention|message|instructions?)\s+(?:to|for)\s+(?:the\s+|any\s+|all\s+)?{_MODEL}",
        rf"\b{_SAY}\b.{{0,30}}?\b(?:{_WITH}|{_ONLY})\b.{{0,15}}?{_LITERAL}",
        rf"\b{_SAY}\s+{_ONLY}\s+{_WITH}\b",
        rf"\b{_SAY}\b.{{0,12}}?\b(?:the (?:exact )?(?:word|phrase|string)|das wort|le mot|la palabra|la parola)\b",
        # A single word at the end is a literal, unless it says how to answer: "Always reply promptly".
        rf"\b{_ONLY}\s+(?:answer|reply|respond|say|output)\s+(?:{_WITH}\s+)?(?!\w+ly\b)\w+\W*$",
        rf"\b(?:antworte|réponds|répondez|responde|rispondi)\s+{_ONLY}\s+(?!\w+(?:ly|ment|mente)\b)\w+\W*$",
        r"\banswer\b.{0,20}\b(?:every|any|all|each)\b.{0,12}\bquestions?\b.{0,60}\bis\b",
        rf"\b{_ASKED}\b.{{0,80}}[,:]\s*(?:then |please |always |dann )?{_SAY}\b",
        rf"\b{_IGNORE}\s+(?:everything|all|what)\b.{{0,20}}\byou\b",
        r"\[/?inst\]|</?(?:system|instructions?|prompt)>",
        # Ordinary sentences have these forms too, but rarely with a literal.
        rf"\binstructions?\s*:.{{0,40}}?\b{_SAY}\b.{{0,20}}?{_LITERAL}",
        rf"^\W*assistant\s*:\s*{_LITERAL}",
        rf"\b{_YOUR}\s+(?:\w+ )?{_REPLY}\b.{{0,30}}?\b(?:{_MUST}|is|be)\b{_ANSWERED}.{{0,30}}?{_LITERAL}",
        rf"\b(?:you|model)\s+(?:{_ONLY}|now|{_MUST})\s+{_SAY}\b.{{0,20}}?{_LITERAL}",
        rf"\b(?:append|include|insert|add|mention|put|start|begin|end|finish|prefix)\b.{{0,50}}?{_LITERAL}.{{0,30}}\b{_REPLY}\b",
        rf"\b(?:start|begin|end|finish|prefix)\b.{{0,20}}\b{_REPLY}\b.{{0,30}}?{_LITERAL}",
        rf"\b(?:answer|respond|reply|summari[sz]e|answering|responding|replying|summari[sz]ing)\b.{{0,40}}?[,;:]\s*"
        rf"(?:{_SAY}|mention|include|add)\b.{{0,20}}?{_LITERAL}",
        rf"\binstead of (?:answering|the answer)\b.{{0,40}}?{_LITERAL}",
        rf"(?:^|[.;:!]\s+)(?:please )?(?:say|reply|respond|repeat(?: after me)?)\b\W*{_LITERAL}",
        rf"{_LITERAL}.{{0,40}}\b(?:only|as)\b.{{0,10}}\b(?:the|your) (?:\w+ )?{_REPLY}\b",
        rf"\b{_ONLY}\b\s+{_LITERAL}.{{0,30}}\b{_REPLY}\b",
    )
]


def is_instruction(sentence: str) -> bool:
    """Return whether a sentence seems to give an instruction to a language model.

    Args:
        sentence: The sentence.
    """
    return any(pattern.search(sentence) for pattern in _PATTERNS)


def without_instructions(text: str, sentences: Sequence[Sentence]) -> Iterator[Sentence]:
    """Yield the sentences except instructions to a language model.

    Args:
        text: The text.
        sentences: Its sentences.
    """
    return (each for each in sentences if not is_instruction(text[each.start : each.end]))
