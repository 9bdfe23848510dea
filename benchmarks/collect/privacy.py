"""Masking of personal data and secrets: recall and precision on documents in which other programs planted them.

    python -m benchmarks.collect.privacy [--documents 1000] [--seed 5] [--text FILE] [--show 20]

Every document is two paragraphs of real prose (Python's own reference manual, or a text of yours) with one to three
sentences between them that hold a secret, and one or two that hold a look-alike. Secrets come from Faker in many
locales and from privacy_by_hand.jsonl; look-alikes (versions, ISBNs, hashes, order numbers, failed check digits) from
there, from Faker's other providers and from Python's standard library. Nothing is drawn from the patterns that are
measured.

A secret is found if one mask of its kind covers it whole. A mask that touches no secret is false, whether it lies in a
look-alike or in the prose. Half of the telephone numbers and all national ids have a word beside them that says what
they are. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from faker import Faker

from groundup.corpus.privacy import Masker, PrivacySettings

BY_HAND = Path(__file__).with_name("privacy_by_hand.jsonl")

PHONE_LOCALES = [
    "ar_AE", "cs_CZ", "da_DK", "de_AT", "de_CH", "de_DE", "el_GR", "en_AU", "en_CA", "en_GB", "en_IN",
    "en_NZ", "en_US", "es_AR", "es_CL", "es_CO", "es_ES", "es_MX", "et_EE", "fi_FI", "fr_CH", "fr_FR",
    "he_IL", "hr_HR", "hu_HU", "id_ID", "it_IT", "ja_JP", "ko_KR", "lt_LT", "nl_BE", "nl_NL", "no_NO",
    "pl_PL", "pt_BR", "pt_PT", "ro_RO", "ru_RU", "sk_SK", "sl_SI", "sv_SE", "th_TH", "tr_TR", "uk_UA",
    "vi_VN", "zh_CN", "zh_TW",
]  # fmt: skip
ID_LOCALES = [
    "de_AT", "de_CH", "el_GR", "en_CA", "en_GB", "en_US", "es_AR", "et_EE", "fi_FI", "fr_FR", "he_IL",
    "hr_HR", "hu_HU", "it_IT", "ko_KR", "lv_LV", "nl_BE", "nl_NL", "no_NO", "pl_PL", "pt_BR", "ro_RO",
    "ru_RU", "sv_SE", "th_TH", "tr_TR", "uk_UA", "zh_CN", "zh_TW",
]  # fmt: skip
OTHER_IDS = ["es_ES.nie", "es_ES.nif", "es_MX.curp", "pt_BR.cpf", "ru_RU.snils"]  # Faker's providers beside ssn()
IBAN_LOCALES = [
    "de_AT", "de_CH", "de_DE", "el_GR", "en_GB", "en_IE", "es_ES", "fi_FI", "fr_FR", "it_IT", "nl_NL",
    "no_NO", "pl_PL", "pt_PT", "tr_TR",
]  # fmt: skip
MAIL_LOCALES = [
    "cs_CZ", "de_DE", "en_US", "es_ES", "fr_FR", "it_IT", "ja_JP", "pl_PL", "pt_BR", "ru_RU", "sv_SE",
    "zh_CN",
]  # fmt: skip
CARDS = ["amex", "diners", "discover", "jcb15", "jcb16", "maestro", "mastercard", "visa13", "visa16", "visa19"]

SENTENCES = {
    "email": ["You can write to {} at any time.", "Author: {}", "{} wrote:", "Mail: {}", "<{}>", "Ask {}, she knows."],
    "phone": [
        "Tel.: {}",
        "Call me at {} tomorrow.",
        "Phone {}",
        "mobile: {}",
        "You can reach the office under {}.",
        "Her number is {}.",
        "Anna Berg, {}",
        "Opening hours 9 to 5, {}, closed on Sundays.",
    ],
    "iban": ["The account is {}.", "IBAN: {}", "Please pay to {} within 14 days.", "{}"],
    "credit_card": ["Card number: {}", "I paid with {} yesterday.", "{} expired last month.", "Visa? {} is refused."],
    "ip_address": ["Connection from {} closed.", "The host {} does not answer.", "{} GET /index.html", "Blocked: {}"],
    "mac_address": ["The adapter has {}.", "ether {} txqueuelen 1000", "MAC: {}"],
    "national_id": [
        "National ID: {}",
        "His social security number is {}.",
        "identity number {}",
        "SSN {}",
        "Tax ID: {} (please check)",
    ],
    "password": ["password: {}", "password = '{}'", "ftp://backup:{}@files.example.net/"],
}  # fmt: skip


@dataclass
class Planted:
    """A document, and where its secrets stand: (start, end, kind)."""

    text: str
    secrets: list[tuple[int, int, str]] = field(default_factory=list)
    lookalikes: list[tuple[int, int]] = field(default_factory=list)


class Planter:
    """Makes documents; the same seed makes the same ones."""

    def __init__(self, seed: int, prose: list[str]) -> None:
        self.random = random.Random(seed)
        self.prose = prose
        self._fakers: dict[str, Faker] = {}
        self._seed = seed
        lines = [json.loads(line) for line in BY_HAND.read_text().splitlines()]
        self.by_hand = [(each["kind"], each["text"], "".join(each["parts"])) for each in lines]

    def faker(self, locale: str = "en_US") -> Faker:
        """The locale's provider, seeded once."""
        if locale not in self._fakers:
            self._fakers[locale] = Faker(locale)
            self._fakers[locale].seed_instance(self._seed)
        return self._fakers[locale]

    def secret(self) -> tuple[str, str, str]:
        """Kind, sentence, value: one in three by hand, the rest by Faker."""
        if self.random.random() < 0.34:
            return self.random.choice([each for each in self.by_hand if each[0]])
        kind = self.random.choice(list(SENTENCES))
        return kind, self.random.choice(SENTENCES[kind]), getattr(self, f"_{kind}")()

    def _email(self) -> str:
        faker = self.faker(self.random.choice(MAIL_LOCALES))
        return self.random.choice([faker.email, faker.free_email, faker.company_email, faker.ascii_email])()

    def _phone(self) -> str:
        while (
            len(digits := re.sub(r"\D", "", number := self.faker(self.random.choice(PHONE_LOCALES)).phone_number())) < 7
        ):
            del digits  # numbers of services, such as 117
        return number

    def _iban(self) -> str:
        iban = self.faker(self.random.choice(IBAN_LOCALES)).iban()
        return " ".join(re.findall("..?.?.?", iban)) if self.random.random() < 0.5 else iban

    def _credit_card(self) -> str:
        number = self.faker().credit_card_number(self.random.choice(CARDS))
        mark = self.random.choice(["", " ", "-"])
        groups = [number[:4], number[4:10], number[10:]] if len(number) in (14, 15) else re.findall("..?.?.?", number)
        return mark.join(groups)

    def _ip_address(self) -> str:
        faker = self.faker()
        return self.random.choice([faker.ipv4_public, faker.ipv6])()

    def _mac_address(self) -> str:
        return self.random.choice([str, str.upper])(self.faker().mac_address()).replace(":", self.random.choice(":-"))

    def _national_id(self) -> str:
        locale, _, provider = self.random.choice([*ID_LOCALES, *OTHER_IDS]).partition(".")
        return str(getattr(self.faker(locale), provider or "ssn")())

    def _password(self) -> str:
        return str(self.faker().password(length=self.random.randint(8, 16), special_chars=False))

    def lookalike(self) -> tuple[str, str]:
        """Sentence and value of something that is no secret."""
        if self.random.random() < 0.6:
            return self.random.choice([each for each in self.by_hand if not each[0]])[1:]
        faker, draw = self.faker(), self.random
        makers: list[tuple[str, Callable[[], str]]] = [
            ("ISBN {}", faker.isbn13),
            ("ISBN {} (hardcover)", faker.isbn10),
            ("EAN {}", faker.ean13),
            ("commit {} broke it", faker.sha1),
            ("md5 {}", faker.md5),
            ("run {}", lambda: str(uuid.UUID(int=draw.getrandbits(128), version=4))),
            ("on {}", lambda: faker.date()),
            ("logged at {}", lambda: datetime.fromtimestamp(draw.randrange(10**9, 2 * 10**9)).isoformat(" ")),
            ("order {} was sent", lambda: str(draw.randrange(10**8, 10**16))),
            ("invoice no. {}", lambda: str(draw.randrange(10**7, 10**12))),
            ("{} items", lambda: f"{draw.randrange(10**6, 10**10):,}"),
            ("costs {}", faker.pricetag),
            ("release {}", lambda: ".".join(str(draw.randrange(40)) for _ in range(4))),
            ("x = {}", lambda: repr(draw.random() * 10 ** draw.randrange(8))),
            ("at {}", lambda: f"{faker.latitude()}, {faker.longitude()}"),
            ("handle @{}", faker.user_name),
            ("{}", lambda: "  ".join(str(draw.randrange(1000)) for _ in range(8))),
            ("licence plate {}", faker.license_plate),
            ("colour {}", faker.hex_color),
            ("rgb {}", faker.rgb_color),
            ("file {}", faker.file_path),
            ("agent {}", faker.user_agent),
            ("see {}", faker.uri),
        ]
        sentence, make = draw.choice(makers)
        return sentence, make()

    def document(self) -> Planted:
        """Prose, secrets and look-alikes between its paragraphs."""
        first, last = self.random.sample(self.prose, 2)
        sentences = [self.secret() for _ in range(self.random.randint(1, 3))]
        sentences += [("", *self.lookalike()) for _ in range(self.random.randint(1, 2))]
        self.random.shuffle(sentences)
        planted = Planted(first)
        for kind, sentence, value in sentences:
            planted.text += self.random.choice(["\n", " ", "\n\n"])
            start = len(planted.text) + sentence.index("{}")
            planted.text += sentence.replace("{}", value, 1)
            if kind:
                planted.secrets.append((start, start + len(value), kind))
            else:
                planted.lookalikes.append((start, start + len(value)))
        planted.text += "\n" + last
        return planted


def paragraphs(text: str) -> list[str]:
    """Paragraphs of some length."""
    return [part.strip() for part in re.split(r"\n\s*\n", text) if 200 <= len(part) <= 3000]


def real_prose(path: Path | None) -> list[str]:
    """Python's reference manual, which every Python has inside, or a file."""
    if path:
        return paragraphs(path.read_text(encoding="utf-8", errors="replace"))
    from pydoc_data.topics import topics

    return paragraphs("\n\n".join(topics.values()))


def score(masker: Masker, documents: list[Planted]) -> tuple[dict[str, Counter[str]], list[str]]:
    """Counts by kind (planted, found, masked, true), and the mistakes."""
    counts: dict[str, Counter[str]] = {}
    mistakes: list[str] = []
    for document in documents:
        spans = masker.mask(document.text).spans
        for start, end, kind in document.secrets:
            tally = counts.setdefault(kind, Counter())
            tally["planted"] += 1
            if any(span.kind == kind and span.start <= start and end <= span.end for span in spans):
                tally["found"] += 1
            else:
                got = [span.kind for span in spans if span.start < end and start < span.end]
                mistakes.append(f"missed {kind} (taken for {got}): {_around(document.text, start, end)}")
        for span in spans:
            tally = counts.setdefault(span.kind, Counter())
            tally["masked"] += 1
            if any(start < span.end and span.start < end for start, end, _ in document.secrets):
                tally["true"] += 1
            else:
                mistakes.append(f"false {span.kind}: {_around(document.text, span.start, span.end)}")
    return counts, mistakes


def _around(text: str, start: int, end: int) -> str:
    return repr(f"{text[max(0, start - 40) : start]}>>{text[start:end]}<<{text[end : end + 20]}")


def table(counts: dict[str, Counter[str]]) -> Iterator[str]:
    """The rows, as Markdown."""
    yield "| kind | planted | recall | masked | precision |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for kind, tally in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        recall, precision = tally["found"] / max(1, tally["planted"]), tally["true"] / max(1, tally["masked"])
        yield f"| {kind} | {tally['planted']} | {recall:.3f} | {tally['masked']} | {precision:.3f} |"


def main() -> None:
    """Plant, mask, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--text", type=Path, help="the prose around the secrets")
    parser.add_argument("--show", type=int, default=0, help="how many mistakes to print")
    arguments = parser.parse_args()
    planter = Planter(arguments.seed, real_prose(arguments.text))
    documents = [planter.document() for _ in range(arguments.documents)]
    masker = Masker(PrivacySettings())
    began = time.perf_counter()
    counts, mistakes = score(masker, documents)
    seconds = time.perf_counter() - began
    print("\n".join(mistakes[: arguments.show]))
    print("\n".join(table(counts)))
    total: Counter[str] = sum(counts.values(), Counter())
    result = {
        "privacy_recall": round(total["found"] / total["planted"], 4),
        "privacy_precision": round(total["true"] / max(1, total["masked"]), 4),
        "documents": len(documents),
        "documents_per_second": round(len(documents) / seconds),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
