"""Secrets of unknown issuers are masked.

In an earlier release, secrets of 69 % of the kinds that gitleaks recognizes were not masked in running text.

The values are generated from documented lengths and alphabets, so that this file contains no secrets.
"""

from __future__ import annotations

import random
import string
from functools import partial

import pytest

from cpu_time import cpu_seconds
from groundup.corpus.privacy import Masker, PrivacySettings

MASKER = Masker(PrivacySettings())
DIGITS, LOWER, UPPER = string.digits, string.ascii_lowercase, string.ascii_uppercase
HEX, BASE36, BASE62, URL = "0123456789abcdef", LOWER + DIGITS, LOWER + UPPER + DIGITS, LOWER + UPPER + DIGITS + "-_"
# A key consists of parts. A part is literal text, or a pair of an alphabet and a length.
FORMS = {
    "gitlab pipeline trigger": ["glp", "tt-", (HEX, 40)],
    "gitlab feed": ["gl", "ft-", (BASE62, 20)],
    "rubygems": ["ruby", "gems_", (HEX, 48)],
    "pulumi": ["pu", "l-", (HEX, 40)],
    "sentry user": ["sntr", "yu_", (HEX, 64)],
    "doppler": ["dp.", "pt.", (BASE62, 43)],
    "doppler service": ["dp.", "st.prd.", (BASE62, 43)],
    "planetscale": ["pscale", "_pw_", (BASE62, 43)],
    "new relic": ["NR", "AK-", (UPPER + DIGITS, 27)],
    "new relic insights": ["NR", "II-", (BASE36, 32)],
    "grafana cloud": ["gl", "c_eyJ", (BASE62, 80)],
    "grafana service account": ["gl", "sa_", (BASE62, 32), "_", (HEX, 8)],
    "alibaba": ["LT", "AI5t", (BASE62, 20)],
    "bedrock": ["AB", "SK", (BASE62, 120)],
    "1password": ["op", "s_eyJ", (BASE62, 260)],
    "airtable": ["pa", "t", (BASE62, 14), ".", (HEX, 64)],
    "heroku": ["HRK", "U-AA", (BASE62, 58)],
    "mapbox": ["s", "k.eyJ", (BASE62, 60), ".", (BASE62, 22)],
    "hugging face, letters alone": ["h", "f_", (LOWER, 34)],
    "clickhouse": ["4b", "1d", (BASE62, 38)],
    "azure": [(BASE62, 3), "8", "Q~", (BASE62, 34)],
    "terraform": [(BASE62, 14), ".atlas", "v1.", (URL, 67)],
    "maxmind": [(BASE62, 6), "_", (BASE62, 29), "_m", "mk"],
    "typeform": ["tf", "p_", (BASE62, 44)],
    "circleci": ["CCI", "PAT_", (BASE62, 22), "_", (HEX, 40)],
    "docker organization": ["dckr", "_oat_", (BASE62, 32)],
    "langsmith": ["ls", "v2_pt_", (HEX, 32), "_", (HEX, 10)],
    "tailscale": ["tskey", "-auth-", (BASE62, 12), "CNTRL-", (BASE62, 32)],
    "supabase": ["sb", "_secret_", (BASE62, 31)],
    "telegram": [(DIGITS, 10), ":A", "A", (URL, 33)],
    "an issuer that nobody knows": ["ac", "me_live_", (BASE62, 32)],
    "another one": ["zqx", "-", (BASE36, 40)],
    "one with hexadecimal digits": ["zqx", "_pat_", (HEX, 40)],
}
PLACES = [
    "My key is {}, please rotate it.",
    "We lost {}.",
    "Use `{}` for now",
    'He wrote "{}" into the file.',
    '{{"k": "{}", "n": 1}}',
    "export X={}\n",
    "x: {}\n",
    "curl -H 'X-Key: {}' https://host.example/",
    "See https://host.example/a?x={}&y=1 for it.",
    "- **Value:** {}\n",
]
# These are realistic lines that contain no secrets.
ORDINARY = [
    'integrity: "sha512-'
    + "Q8zYdG1kq3kJ0oP+u4mFq1Yb1l3n9K0rV8hU2tqYwZb1sXhK7dE5fP3mC6nA2gT9iJ4kL8oR0vW1xS5yU7zB3Q"
    + '=="',
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 (HEAD -> main)",
    "-e git+https://host.example/x@9fceb02d0ae598e95dc970b74767f19372d61af8#egg=x",
    '<img src="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk'
    '+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==">',
    "id = 550e8400-e29b-41d4-a716-446655440000",
    "VK_FORMAT_R16G16B16A16_SFLOAT, VK_FORMAT_A2B10G10R10_UNORM_PACK32",
    "y = s.getDerivedStateFromProps || s.noDeleteOnFetchRejection",
    "cancelToken: defaultToConfig2,",
    "readonly STENCIL_BACK_PASS_DEPTH_PASS: 0x8803",
    "from transformers.models.wav2vec2_with_lm.processing_wav2vec2_with_lm import Wav2Vec2ProcessorWithLM",
    "GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "api_key = YOUR_API_KEY  # sk-your-key-here, hf_your_token_goes_here_please",
    "glpat-<your token>, ${GLPAT_TOKEN}, {{ secrets.NPM_TOKEN }}",
    "task-runner-with-a-long-name-2, pre-commit-hook_version_12, test_conv2d_3x3_bn_relu6",
    "https://host.example/watch?v=dQw4w9WgXcQ&list=PLrAXtmErZgOeiKm4sgNOknGvNjby9efdf",
]


def drawn(name: str, number: int) -> str:
    source = random.Random(f"{name} {number}")
    pieces = FORMS[name]
    return "".join(each if isinstance(each, str) else "".join(source.choices(each[0], k=each[1])) for each in pieces)


@pytest.mark.parametrize("name", FORMS)
def test_a_key_is_masked_in_any_context(name: str) -> None:
    values = [drawn(name, number) for number in range(5)]
    found = [value not in MASKER.mask(place.format(value)).text for value in values for place in PLACES]
    assert sum(found) >= 0.95 * len(found)


def test_ordinary_lines_are_not_masked() -> None:
    changed = [line for line in ORDINARY if MASKER.mask(line).text != line]
    assert changed == []


def test_a_value_after_a_service_name_is_masked() -> None:
    value = "".join(random.Random(3).choices(BASE36, k=32))
    assert MASKER.mask(f"ADAFRUIT_IO = '{value}'").text == "ADAFRUIT_IO = '[API_KEY]'"
    assert MASKER.mask(f"The checksum is {value}").text == f"The checksum is {value}"


def test_keys_of_connection_strings_are_masked() -> None:
    key = "".join(random.Random(5).choices(BASE62, k=86)) + "=="
    assert MASKER.mask(f"AccountName=acme;AccountKey={key};EndpointSuffix=x").text == (
        "AccountName=acme;AccountKey=[API_KEY];EndpointSuffix=x"
    )


@pytest.mark.parametrize("unit", ["gl" + "pat-", "acme_1", "op" + "s_eyJ", "heroku: ", "a1_", "s."])
def test_time_is_linear_in_key_prefixes(unit: str) -> None:
    """Each prefix of a key is checked, but a prefix must not cause a second scan of the text."""
    texts = (unit * (size // len(unit)) for size in (5_000, 40_000))
    few, many = (cpu_seconds(partial(MASKER.mask, text)) for text in texts)
    assert many < 24 * few + 0.05
