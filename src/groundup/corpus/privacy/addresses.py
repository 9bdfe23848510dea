"""Detection of email, IP and MAC addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from groundup.corpus.privacy.labels import label
from groundup.corpus.privacy.spans import Finder, NormalizedText, Span

# RFC 5321 allows at most 64 characters before the @ and 255 characters after it. The local part is matched backwards
# from the @, so the time is linear in the length of the text.
_LOCAL_BACKWARDS = re.compile(r"[\w!#$%&'*+/=?^`{|}~\-](?:[\w.!#$%&'*+/=?^`{|}~\-]{0,62}[\w])?|[\w]")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w\-]{0,61}[^\W_])?\.){1,8}(?:[^\W\d_]{2,24}|xn--[a-z0-9\-]{2,50})(?![^\W_]|-\w)")
_LITERAL = re.compile(r"\[\d{1,3}(?:\.\d{1,3}){3}\]")
# Addresses of the form "name [at] host [dot] org". Brackets are required, because "at" and "dot" are common words.
_DISGUISED = re.compile(
    r"(?<![\w.\-])[\w.+\-]{1,64}\s?[\[({<]\s?at\s?[\])}>]\s?[\w\-]{1,63}"
    r"(?:(?:\s?[\[({<]\s?do?t\s?[\])}>]\s?|\.)[\w\-]{1,63}){1,4}(?!\w)",
    re.IGNORECASE,
)
_AT_SIGNS = ("[at]", "(at)", "{at}", "<at>", "[ at ]", "( at )")
# A domain with one of these endings is a file name, as in logo@2x.png.
_FILE_ENDINGS = frozenset({
    "png", "jpg", "jpeg", "gif", "svg", "webp", "bmp", "ico", "pdf", "css", "scss", "js", "jsx", "ts", "tsx", "json",
    "html", "htm", "xml", "yml", "yaml", "txt", "md",
})  # fmt: skip

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![\w.\-~])(?:{_OCTET}\.){{3}}{_OCTET}(?![\w\-+~]|\.\w)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}(?:[0-9a-fA-F]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:]|\.\w)")
_MAC = re.compile(
    r"(?<![\w:\-.])(?:[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})"
    r"|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![\w:\-]|\.\w)"
)
_IPV4_SHAPE = re.compile(rb"0\.0{1,3}\.0{1,3}\.0")
_IPV6_SHAPE = re.compile(rb"h:h{1,4}:h{1,4}:")
_MAC_SHAPES = (b"hh:hh:hh:hh:hh:hh", b"hh-hh-hh-hh-hh-hh", b"hhhh.hhhh.hhhh")
_PREFIX = re.compile(r"/\d{1,3}(?!\w)")
_MAC_WORD = re.compile(r"\b(?:mac|ether|hardware|physical|arp|hwaddr|lladdr|bssid)(?![a-z])", re.IGNORECASE)
_VERSION = re.compile(
    r"(?:\bv(?:er(?:sion)?s?)?|\brelease|\bbuild|\bfirmware|\brev(?:ision)?|\brv|\b(?:up|down)graded? (?:from|to)"
    r"|\bsections?|\bclause|§)[ :.=#]{0,3}\Z"
)


def find_emails(view: NormalizedText) -> Iterator[Span]:
    """Yield email addresses, including the form "name [at] host [dot] org".

    "user@host" is not an email address, because it has no top-level domain.
    """
    text = view.text
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1) or _LITERAL.match(text, at + 1)
        local = _LOCAL_BACKWARDS.match(text[max(0, at - 64) : at][::-1]) if domain else None
        if domain and local:
            start, end = at - local.end(), domain.end()
            if _is_email(text, start, end):
                yield Span(start, end, "email")
            at = end - 1
        at = text.find("@", at + 1)
    if any(sign in view.lowered for sign in _AT_SIGNS):
        yield from (Span(*found.span(), "email") for found in _DISGUISED.finditer(text))


def _is_email(text: str, start: int, end: int) -> bool:
    if text[end - 6 : end].rpartition(".")[2].lower() in _FILE_ENDINGS:
        return False
    if text[max(0, start - 1) : start] == "@":  # @name@host is a user name of a social network.
        return False
    # git@host:team/project.git is the SSH address of a Git repository.
    return not re.match(r":(?!\s)[\w~./\-]*/", text[end : end + 80])


def ip_finder(private: bool = False) -> Finder:
    """Return a finder of IP addresses that identify a single host.

    Args:
        private: Whether to find addresses of private networks, too.
    """

    def masked(text: str, found: re.Match[str]) -> bool:
        address = found[0]
        try:
            if prefix := _PREFIX.match(text, found.end()):
                ipaddress.ip_network(address + prefix[0])  # fails if it is not the address of a network
                return False
        except ValueError:
            pass
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if ip.is_unspecified or ip.is_loopback or (ip.is_multicast and (ip.version == 4 or "::" in address)):
            return False
        if ip.version == 4 and address.startswith(("255.", "0.")):  # a netmask or the broadcast address
            return False
        return private or not (address.lower().startswith("fe80:") or any(ip in network for network in _LOCAL))

    def find(view: NormalizedText) -> Iterator[Span]:
        text = view.text
        if b"0.0" in view.shape and _IPV4_SHAPE.search(view.shape):
            for found in _IPV4.finditer(text):
                if masked(text, found) and not _is_version(text, found):
                    yield Span(*found.span(), "ip_address")
        if b"::" in view.hex_shape or (b"h:h" in view.hex_shape and _IPV6_SHAPE.search(view.hex_shape)):
            for found in _IPV6.finditer(text):
                if found[0].count(":") >= 3 and any(map(str.isdigit, found[0])) and masked(text, found):
                    yield Span(*found.span(), "ip_address")

    return find


_LOCAL = [
    *map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"))
]


def _is_version(text: str, found: re.Match[str]) -> bool:
    """Return whether four numbers separated by dots are a version or section number instead of an IP address."""
    start = found.start()
    before = text[max(0, start - 24) : start].lower()
    if before.endswith("/") and not before.endswith("//"):  # Firefox/3.5.0.1
        return True
    if _VERSION.search(before):
        return True
    kind = label(text, *found.span()).kind
    if kind == "ip_address":
        return False
    return kind == "other" or sum(int(octet) < 20 for octet in found[0].split(".")) >= 3


def find_macs(view: NormalizedText) -> Iterator[Span]:
    """Yield MAC addresses, except the broadcast address (ff:ff:ff:ff:ff:ff) and the address with all zeros."""
    text = view.text
    if not any(shape in view.hex_shape for shape in _MAC_SHAPES):
        return
    for found in _MAC.finditer(text):
        digits = set(found[0].lower()) - set(":-.")
        # Tables of hexadecimal numbers often use the format with dots, so an address in this format needs a label.
        dotted = "." in found[0]
        if len(digits) > 1 and (not dotted or _MAC_WORD.search(text, max(0, found.start() - 48), found.start())):
            yield Span(*found.span(), "mac_address")
