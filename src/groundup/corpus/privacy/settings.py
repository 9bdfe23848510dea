"""The settings of masking."""

from __future__ import annotations

from typing import Literal, get_args

from groundup.core.config import Config, setting

Kind = Literal[
    "email",
    "phone",
    "ip_address",
    "mac_address",
    "iban",
    "credit_card",
    "national_id",
    "api_key",
    "token",
    "private_key",
    "password",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class PrivacySettings(Config):
    """Which personal data and secrets are masked."""

    enabled: bool = setting(True, help="mask personal data and secrets with marks such as [EMAIL]")
    kinds: list[Kind] = setting(list(KINDS), help="what is masked")
    phone_regions: list[str] = setting(
        [],
        help='countries ("DE", "US") whose national phone numbers are masked without a word like "tel." beside them',
    )
    id_countries: list[str] = setting(
        [], help='only national ids of these countries ("US", "SE") are looked for; default: of all that are known'
    )
    private_addresses: bool = setting(False, help="mask IP addresses of private networks (192.168.0.7), too")
    patterns: dict[str, str] = setting({}, help='patterns of your own: {employee = "EMP-[0-9]{6}"} masks as [EMPLOYEE]')
