"""Personal data and secrets are masked; numbers, code and prose are not. Values are from public documents."""

from __future__ import annotations

from functools import partial

import pytest

from cpu_time import cpu_seconds
from groundup.core.errors import ConfigError
from groundup.core.types import Document
from groundup.corpus.privacy import KINDS, Masker, PrivacySettings, placeholder_token

MASKER = Masker(PrivacySettings())


def masked(text: str) -> str:
    return MASKER.mask(text).text


@pytest.mark.parametrize(
    ("kind", "before", "value", "after"),
    [
        ("email", "Write to ", "jane.doe+news@mail.example.co.uk", "."),
        ("email", "by mail: ", "jane [at] example [dot] org", ""),
        ("phone", "Call ", "+49 (0)30 901820", " today"),
        ("phone", "Ring ", "020 7946 0958", ""),
        ("phone", "Tel. ", "555-0134", ""),
        ("phone", "She lives in Reno; ", "(775) 555-0199 ext. 3", ""),
        ("phone", "联系电话：", "13800138000", "。"),
        ("phone", "هاتف: ", "٠١٢٣٤٥٦٧٨٩", ""),
        ("iban", "to ", "GB82 WEST 1234 5698 7654 32", " by Friday"),
        ("iban", "", "DE89370400440532013000", ""),
        ("credit_card", "paid with ", "4111 1111 1111 1111", ""),
        ("credit_card", "Amex ", "378282246310005", " was refused"),
        ("ip_address", "sshd: connection from ", "45.148.10.87", " port 52114"),
        ("ip_address", "AAAA ", "2a02:8109:9a80:1c3f::2", ""),
        ("mac_address", "link/ether ", "3c:22:fb:91:0a:7e", " brd ff:ff:ff:ff:ff:ff"),
        ("national_id", "", "219-09-9999", " is hers"),
        ("national_id", "PESEL: ", "44051401359", ""),
        ("national_id", "", "11010519491231002X", ""),
        ("national_id", "The code is ", "RSSMRA85T10A562S", "."),
        ("national_id", "CPF ", "390.533.447-05", ""),
        ("national_id", "national ID ", "111222333", ""),
        ("api_key", "aws configure: ", "AKIA" + "IOSFODNN7EXAMPLE", ""),
        ("api_key", "aws_secret_access_key = ", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""),
        ("token", "Authorization: Bearer ", "mF_9.B5f-4.1JqMx82LkQz7", "\n"),
        ("password", "postgres://shop:", "v3ryS3cr3t", "@db:5432/shop"),
        ("password", 'password = "', "correct-horse", '"'),
        ("password", "login: admin, password: ", "hunter2", ""),
    ],
)
def test_values_are_masked(kind: str, before: str, value: str, after: str) -> None:
    assert masked(before + value + after) == before + placeholder_token(kind) + after
    assert MASKER.mask(before + value + after).counts == {kind: 1}


@pytest.mark.parametrize(
    "text",
    [
        "Version 1.18.0.3 of 2023-11-05 replaces 10.0.19041.1; Chrome/91.0.4472.124 stays.",
        "Listen on 127.0.0.1 and 192.168.1.7, netmask 255.255.255.0, network 203.0.113.0/24.",
        "ISBN 978-3-16-148410-0, ISSN 0378-5955, doi:10.1000/182-555-0199",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8, id 550e8400-e29b-41d4-a716-446655440000",
        "Your order 112-7366453-2289011 and invoice no. 415-555-2671 have shipped.",
        "Card 4111 1111 1111 1112 and IBAN DE89 3704 0044 0532 0130 01 fail their checks.",
        "PESEL 44051401358 is wrong by one; SSN 000-12-3456 was never given out.",
        "1 250 000 000 people, 3.14159265358979, 2**40 = 1099511627776, 12 15 18 21 24 27 30 33",
        "pp. 1234-1256, 1914 1915 1916, in 1998-2003, at 48.858222, 2.294500",
        "git clone git@github.com:torvalds/linux.git; ssh deploy@webserver01; @alice@mastodon.social",
        "@app.route('/users')\nimport x  # npm install @babel/core@7.22.5, logo@2x.png",
        "password = getpass.getpass()\ntoken = tokens[i + 1]\nsecret: ${{ secrets.DEPLOY_TOKEN }}",
        "The password is required. A password: string. api_key = os.environ['OPENAI_API_KEY']",
        "https://shop.example/p/415-555-2671?session=4111111111111111",
        "0041 030A ; 7712 7837 6552 6DF1 5624 6484 7507",
        "std::chrono::seconds 12:34:56, AB12:CD34, a::b::c",
        "fingerprint 43:51:43:a1:b5:fc:8b:b7:0a:3a:a9:b1:0f:66:73:a8",
    ],
)
def test_similar_values_are_not_masked(text: str) -> None:
    assert masked(text) == text


def test_a_truncated_private_key_is_masked() -> None:
    """A key at the end of a split document has no END line."""
    begin, end = "-----BEGIN RSA " + "PRIVATE KEY-----\n", "\n-----END RSA " + "PRIVATE KEY-----"
    body = "MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Qu\n" * 3
    assert masked(f"Key:\n{begin}{body}{end}\nKeep it.") == "Key:\n[PRIVATE_KEY]\nKeep it."
    assert "MIIB" not in masked(f"Key:\n{begin}{body}")


def test_masking_is_idempotent() -> None:
    text = "password: hunter2, mail bob@example.com, tel. +49 170 1234567, https://u:p4ssw0rd@h.example/"
    assert masked(masked(text)) == masked(text)


def test_a_label_applies_to_a_list() -> None:
    assert masked("Call 5550100123, 5550100124 or 5550100125.") == "Call [PHONE], [PHONE] or [PHONE]."
    assert masked('{"phoneNumber": "5550100123", "orderId": "5550100123"}') == (
        '{"phoneNumber": "[PHONE]", "orderId": "5550100123"}'
    )


def test_lone_surrogates_are_accepted() -> None:
    masker = Masker(PrivacySettings(patterns={"employee": "EMP-[0-9]+"}))
    assert masker.mask("\ud800 EMP-7 bob@example.com").text == "\ud800 [EMPLOYEE] [EMAIL]"


def test_kinds_can_be_selected_and_disabled() -> None:
    text = "bob@example.com, +49 170 1234567"
    assert Masker(PrivacySettings(kinds=["phone"])).mask(text).text == "bob@example.com, [PHONE]"
    assert Masker(PrivacySettings(enabled=False)).mask(text).text == text
    assert set(KINDS) == set(PrivacySettings().kinds)


def test_national_numbers_of_a_region_are_masked() -> None:
    """Without a label, "792 601 815" is ambiguous; in Czechia it is a phone number."""
    assert masked("Jan, 792 601 815.") == "Jan, 792 601 815."
    assert Masker(PrivacySettings(phone_regions=["cz"])).mask("Jan, 792 601 815.").text == "Jan, [PHONE]."


def test_only_ids_of_selected_countries_are_masked() -> None:
    ids = "219-09-9999 and RSSMRA85T10A562S"
    assert Masker(PrivacySettings(id_countries=["it"])).mask(ids).text == "219-09-9999 and [NATIONAL_ID]"


def test_private_addresses_are_masked_if_set() -> None:
    assert Masker(PrivacySettings(private_addresses=True)).mask("ping 192.168.1.7").text == "ping [IP_ADDRESS]"


def test_custom_patterns() -> None:
    masker = Masker(PrivacySettings(patterns={"employee": r"EMP-\d{6}"}))
    assert masker.mask("Ärzte: EMP-123456 and bob@example.com").text == "Ärzte: [EMPLOYEE] and [EMAIL]"


@pytest.mark.parametrize(
    ("name", "pattern"), [("employee", "(EMP"), ("employee", r"(?<=x)\d"), ("all", "x*"), ("Not A Name", "x")]
)
def test_a_bad_pattern_is_named(name: str, pattern: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Masker(PrivacySettings(patterns={name: pattern}))


def test_unknown_countries_are_refused() -> None:
    with pytest.raises(ConfigError, match="UK"):
        Masker(PrivacySettings(id_countries=["UK"]))
    with pytest.raises(ConfigError, match="EU"):
        Masker(PrivacySettings(phone_regions=["EU"]))


def test_masking_step_gives_a_new_document() -> None:
    document = Document("Mail bob@example.com", source="s", origin="o")
    out = MASKER.step()(document)
    assert isinstance(out, Document) and out.text == "Mail [EMAIL]" and out.id != document.id
    clean = Document("Nothing here.", source="s", origin="o")
    assert MASKER.step()(clean) is clean


def test_spans_are_of_the_original() -> None:
    text = "İzmir, ＋49 170 1234567, Große@müller.example"
    assert [text[start:end] for start, end, _ in MASKER.mask(text).spans] == [
        "＋49 170 1234567",
        "Große@müller.example",
    ]


@pytest.mark.parametrize(
    "unit",
    [
        "aaaa@",
        "1 ",
        "1",
        "+1(",
        "a.b@",
        "password=",
        "-----BEGIN PRIVATE KEY-----\n",
        "eyJaaaaaaaa.",
        "://a:b",
        "ab:cd-",
    ],
)
def test_time_is_linear(unit: str) -> None:
    """These texts are the worst case of a quadratic search, which would take hours for 64 MiB."""
    masker = Masker(PrivacySettings(patterns={"nested": "(a+)+b"}))
    texts = (unit * (size // len(unit)) for size in (20_000, 160_000))
    few, many = (cpu_seconds(partial(masker.mask, text)) for text in texts)
    assert many < 24 * few + 0.05  # 8 times the text
