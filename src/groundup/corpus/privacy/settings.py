"""Settings for the masking of personal data and secrets."""

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
    """Settings that select the kinds of personal data and secrets to mask."""

    enabled: bool = setting(True, help="replace personal data and secrets by placeholder tokens such as [EMAIL]")
    kinds: list[Kind] = setting(list(KINDS), help="kinds of values to mask")
    phone_regions: list[str] = setting(
        [], help='countries ("DE", "US") whose national phone numbers are masked even if they have no label like "tel."'
    )
    id_countries: list[str] = setting(
        [], help='countries ("US", "SE") whose national IDs are masked; default: all supported countries'
    )
    private_addresses: bool = setting(False, help="also mask IP addresses of private networks (192.168.0.7)")
    patterns: dict[str, str] = setting(
        {}, help='additional RE2 patterns: {employee = "EMP-[0-9]{6}"} is masked as [EMPLOYEE]'
    )
