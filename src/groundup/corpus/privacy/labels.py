"""Detection of the label of a number: a word next to the number that names its kind, such as "phone" or "order no."."""

from __future__ import annotations

import re
from typing import NamedTuple

_BEFORE, _AFTER = 56, 24  # number of characters before and after a number in which a label is searched

# These words are from forms, letters and web pages. A word that exists in several languages is listed only once.
_PHONE = (
    r"tel|ph|tele?phone|(?:home|work|office|contact|day|evening)?phone|mobile|mob|cell|cellphone|cellular|fax|call(?:ed|ing)?"
    r"|dial(?:ed|ing|ling)?|ring|(?:can|or|and|just|please) text|text(?:ed)? (?:me|us|him|her|them|to|at)"
    r"|sms|whatsapp|telegram|viber|contact|hotline|helpline|reach(?:ed|able)?|pager|landline"
    r"|telefon\w*|handy(?:nummer)?|rufnummer|mobil\w*|anrufen|tél|téléphone|portable|appelez|teléfono|telefono|telefone"
    r"|móvil|celular|cellulare|llam\w+|llame|chiam\w+|ligue|puh|puhelin\w*|telefoon\w*|mobiel|bel|gsm|tlf|tlph|telef"
    r"|komórk\w*|telefón\w*|τηλ\w*|тел|телефон\w*|моб\w*|звон\w+|звін\w*|дзвон\w*|(?:my|her|his|our|their|your) number"
)
_PHONE_CJK = (
    r"电话|電話|手机|手機|携帯|致电|热线|联系方式|휴대폰|휴대전화|전화|연락처|โทร"
    r"|هاتف|جوال|تلفن|موبایل|טלפון|נייד|फ़ोन|फोन|मोबाइल|ফোন|মোবাইল"
)
_ID = (
    r"ssns?|social[ _-]?security|social insurance|sin|nino|national insurance|ni (?:number|no)|nhs"
    r"|(?:national|citizens?|personal|person|resident|residence|government|identity|identification|insurance|tax|fiscal"
    r"|taxpayer|id|birth|civil|population|registration|social|health|medicare|voter|aadha+r|pan)[ _-]?(?:id|identity"
    r"|identification|card|code|file|insurance|security|registration)?[ _-]?(?:number|numbers|no|nr|num|code|card|id)"
    r"|identity|identification|taxpayer|tin|itin|tfn|nif|dni|nie|cif|curp|imss|nss|rut|cuit|cuil|cédula|cedula|cpf"
    r"|pesel|bsn|burgerservicenummer|sofinummer|rijksregisternummer|personnummer\w*|samordningsnummer|fødselsnummer"
    r"|fodselsnummer|fnr|cpr\w*|hetu|kennitala|snils|henkilötunnus|egn|oib|jmbg|emšo|emso|cnp|amka|afm|ahv\w*|avs|svnr|ssnr"
    r"|sozialversicherung\w*|versicherungsnummer|steuer\w*|idnr|idnummer|codice fiscale|cod\. ?fisc\.?|nir|insee"
    r"|sécurité sociale|securite sociale|sécu|rodné číslo|rodne cislo|isikukood|personas kods|asmens kodas|kimlik"
    r"|teudat(?: zehut)?|pps|ppsn|nric|fin|hkid|mykad|mcp|rrn|aadha+r|passport|uid number|egrn|инн|снилс|іпн|рнокпп"
    r"|егн|єдрпоу|паспорт\w*|амка"
)
_ID_CJK = r"身份证|身份證|身分證|公民身份|居民身份|주민등록|주민번호|マイナンバー|個人番号|เลขประจำตัว|תעודת זהות|आधार"
_CARD = (
    r"cards?|credit|debit|pay|paid|payment|visa|master ?card|amex|american express|discover|maestro|jcb"
    r"|diners(?: club)?|cc|ccn|pan|kreditkarte\w*|karte\w*|carte|tarjeta|cartão|carta|kort\w*|карт\w+"
)
_CARD_CJK = r"信用卡|银行卡|クレジット|カード番号|카드"
_ADDRESS = r"ips?|ipv4|ipv6|addr(?:ess)?(?:es)?|hosts?|server|client|gateway|dns|nameserver|ping|ssh|router|remote|peer"
# Labels of numbers that are not personal data. "order id" is one label, so that "id" is not mistaken for the label of a
# national ID.
_OTHER = (
    r"(?:orders?|invoice|receipt|tickets?|tracking|serial|sku|isbn|issn|ismn|doi|part|model|item|batch|lot|case|ref|refs"
    r"|reference|confirmation|booking|products?|article|versions?|ver|v|build|revision|rev|release|commit|hash|pages?|pp"
    r"|bugs?|issue|rfc|patent|transaction|txn|shipment|parcel|package|barcode|ean|upc|gtin|asin|timestamp|epoch|time"
    r"|unix|customer|client|account|acct|policy|licen[cs]e|file|records?|rows?|line|lines|section|chapter|§|article|clause"
    r"|port|pid|uid|gid|imei|imsi|iccid|vin|meid|pmid|pmcid|arxiv|oclc|lccn|user|device|session|process|thread|object"
    r"|message|request|job|task|event|node|employee|member|student|post|zip|postal|postcode|plz|firmware|driver|kernel"
    r"|catalog(?:ue)?|inventory|warehouse|asset|delivery|claim|protocol|checksum|crc|seed|population|score|coordinates?"
    r"|lat|lon|latitude|longitude|bestellnummer|bestellung|rechnung\w*|auftrag\w*|sendung\w*|commande|facture|pedido"
    r"|no\.|nr\.|№|factura|ordine|fattura|zamówieni\w+|faktur\w+|tilaus\w*|заказ\w*|сч[её]т\w*|накладн\w*|артикул\w*)"
    r"(?:[ _-]?(?:id|identifier|number|numbers|no|num|nr|code|ref)\b)?"
)
_OTHER_CJK = r"订单|訂單|注文|주문|运单"


# A label is a whole word. The characters next to a label may be "_" or digits, as in "phone_number" and "tel2".
_LABEL = re.compile(
    r"(?<![^\W\d_])(?:"
    + "|".join(
        rf"(?P<{kind}>(?:{words})(?:[ _-]?(?:number|numbers|no|nr|num)\b\.?|(?![^\W\d_])))"
        for kind, words in {
            "other": _OTHER,
            "national_id": _ID,
            "credit_card": _CARD,
            "phone": _PHONE,
            "ip_address": _ADDRESS,
        }.items()
    )
    + ")"
)
# Chinese, Japanese and Thai text does not separate words by spaces, so the label need not be a whole word.
_UNSPACED = re.compile(
    f"(?P<other>{_OTHER_CJK})|(?P<national_id>{_ID_CJK})|(?P<credit_card>{_CARD_CJK})|(?P<phone>{_PHONE_CJK})"
)
_LABEL_AFTER = re.compile(rf"[\s,]{{0,2}}[(\[]\s?(?:{_LABEL.pattern})\s?[)\]]")
# The text that may be between an adjacent label and its number, such as " is " in "order no. is 12".
_CONNECTOR = re.compile(
    r"[ \t:#=.,(\[\"'/\-]{0,6}"
    r"(?:(?:is|was|of|no|nr|num|number|id|the|from|to|at|on|me|us|named|called)\b[ \t:#.\"']{0,3}){0,3}"
)
# A label does not apply if another number, a blank line or the end of a sentence is between the label and the number.
_NUMBER_BEFORE = re.compile(r".*(?<![^\W\d])\d", re.DOTALL)  # The digits in words such as "tel2" are not numbers.
_BARRIER = re.compile(r"\n\s*\n|\n.*\n|[^\W\d_]{4,}[.!?]\s", re.DOTALL)


class Label(NamedTuple):
    """The label of a number in a text.

    Attributes:
        kind: Kind of the number: "phone", "national_id", "credit_card", "ip_address", "other" (e.g. an order number),
            or "" if the number has no label.
        word: The label in lower case.
        adjacent: Whether at most a short connector such as "is" or a colon is between the label and the number.
    """

    kind: str = ""
    word: str = ""
    adjacent: bool = False


def label(text: str, start: int, end: int) -> Label:
    """Return the label of the number at text[start:end].

    A label in brackets directly after the number takes precedence over labels before the number. Of the labels before
    the number, the nearest is returned, unless another number, a blank line or the end of a sentence is between this
    label and the number.
    """
    if (after := _LABEL_AFTER.match(text[end : end + _AFTER].lower())) and after.lastgroup:
        return Label(after.lastgroup, after[after.lastgroup], True)
    window = text[max(0, start - _BEFORE) : start].lower()
    if number := _NUMBER_BEFORE.match(window):
        window = window[number.end() :]
    labels = list(_LABEL.finditer(window))
    if not window.isascii():
        labels = sorted([*labels, *_UNSPACED.finditer(window)], key=lambda found: found.end())
    for found in reversed(labels):
        between = window[found.end() :]
        if _BARRIER.search(window, found.start()):
            break
        adjacent = _CONNECTOR.fullmatch(between) is not None
        if found.lastgroup and (adjacent or found.lastgroup != "other"):
            return Label(found.lastgroup, found[0], adjacent)
    return Label()
