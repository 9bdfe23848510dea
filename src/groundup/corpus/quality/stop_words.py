"""Stop words of many languages. Gopher drops documents that contain fewer than two distinct stop words."""

from __future__ import annotations

from collections.abc import Container

# The English list is from Rae et al. 2021, who do not give lists for other languages. The other lists consist of
# function words that are frequent in the language, but not in unrelated languages.
STOP_WORDS: dict[str, frozenset[str]] = {
    code: frozenset(words.split())
    for code, words in {
        "en": "the be to of and that have with",
        "ar": "في من على إلى أن عن مع التي",
        "bg": "на и да се от за не по",
        "ca": "de la el que les els amb per",
        "cs": "a se na je že to v do",
        "da": "og at det en er til på af",
        "de": "der die und das ist nicht mit zu",
        "el": "και το να του της που με από",
        "es": "de la que el los en las por",
        "et": "ja on ei et kui ka see oli",
        "fa": "و در به از که این را با",
        "fi": "ja on ei että se oli mutta kun",
        "fr": "de la le les et des que est",
        "he": "של את על לא זה הוא עם כי",
        "hi": "के में है की से को और का",
        "hr": "je i u se na da za su",
        "hu": "a az és hogy nem is egy meg",
        "id": "yang dan di dengan untuk dari ini tidak",
        "it": "di che la il per non una del",
        "lt": "ir kad su tai yra bet jo kaip",
        "lv": "un ir ar no kas par bet ka",
        "nl": "de het een van en dat niet met",
        "no": "og det er i på som en ikke",
        "pl": "i w na z się nie do że",
        "pt": "de que a o não os para uma",
        "ro": "și de în la că nu cu este",
        "ru": "и в не на что с как это",
        "sk": "a sa na je že to v do",
        "sl": "je in se da na v so za",
        "sr": "је и у се на да за су",
        "sv": "och att det en som är på för",
        "tr": "ve bir bu da de için ile çok",
        "uk": "і в на що не з до та",
        "ur": "کے میں ہے کی سے کو اور کا",
        "vi": "và của là có không được cho một",
    }.items()
}
_ALL = frozenset().union(*STOP_WORDS.values())


def stop_words_in(words: Container[str], language: str) -> int | None:
    """Count the distinct stop words in a text.

    Args:
        words: The words of the text.
        language: ISO 639 code of the language of the text. If it is "" or "und" (undetermined), the language with the
            most matches is used.

    Returns:
        The number of distinct stop words, or None if there is no stop word list for the language.
    """
    if language not in ("", "und"):
        return sum(word in words for word in STOP_WORDS[language]) if language in STOP_WORDS else None
    found = {word for word in _ALL if word in words}
    return max(len(found & known) for known in STOP_WORDS.values())
