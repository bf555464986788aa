"""Email addresses that can be used (RFC 5322, RFC 6531)."""

from email.headerregistry import Address


def recipient_address(address: str, name: str | None) -> Address:
    """A To address. Raises ValueError for one that cannot be delivered to, or that hides a header.

    A domain may be in any script; a local part must be ASCII, as most servers lack SMTPUTF8
    (RFC 6531).
    """
    local, at, domain = address.strip().rpartition("@")
    try:
        encoded = domain.encode("idna").decode("ascii")
        if not (at and local and local.isascii() and encoded and " " not in encoded):
            raise ValueError(address)
        return Address(one_line(name or ""), addr_spec=f"{local}@{encoded}")
    except (ValueError, IndexError) as error:
        raise ValueError(f"{address!r} is not a valid email address") from error


def one_line(text: str) -> str:
    """The text on one line: a header that breaks off could hide another (RFC 5322)."""
    return " ".join(text.split())
