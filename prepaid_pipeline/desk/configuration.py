"""The desk's settings: where it listens, who may reach it, how long a sign-in lasts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.sign_offs import desk_url

LOOPBACK = "127.0.0.1"
SECRET_LENGTH = 32


@dataclass(frozen=True)
class Oidc:
    """A sign-in provider. ``claim`` is the one that holds the person's name here."""

    issuer: str
    client_id: str
    client_secret: str
    claim: str


@dataclass(frozen=True)
class DeskSettings:
    """``port`` is None for no desk. ``url`` is what people type, without a slash at the end.

    ``proxies`` are the addresses whose X-Forwarded headers are believed. Sessions end after
    ``idle_seconds`` without a request, and after ``absolute_seconds`` in any case.
    """

    host: str
    port: int | None
    url: str
    database_url: str | None
    tls_certificate: Path | None
    tls_key: Path | None
    proxies: tuple[str, ...]
    secret: str | None
    idle_seconds: int
    absolute_seconds: int
    oidc: Oidc | None

    @property
    def is_public(self) -> bool:
        """Whether others than this machine's users can reach it."""
        name = urlsplit(self.url).hostname or ""
        return bool(self.proxies) or not _is_loopback(self.host) or not _is_loopback(name)

    @property
    def is_https(self) -> bool:
        """Whether people reach it over TLS: cookies are then for TLS only."""
        return self.url.startswith("https://")

    def cookie(self, name: str) -> str:
        """A cookie's name; the prefix makes browsers insist on TLS and on this very host."""
        return f"__Host-{name}" if self.is_https else name


def load(environ: Mapping[str, str] | None = None) -> DeskSettings:
    """Read the desk's settings from ``environ`` (default: the process's own).

    Raises SettingError for a value that cannot be used, and for a desk that others can reach
    without TLS or a trusted proxy, a secret and an address.
    """
    env = os.environ if environ is None else environ
    host = env.get("PREPAID_DESK_HOST") or LOOPBACK
    port = _port(env)
    certificate, key = _file(env, "PREPAID_DESK_TLS_CERT"), _file(env, "PREPAID_DESK_TLS_KEY")
    if (certificate is None) != (key is None):
        raise SettingError("PREPAID_DESK_TLS_CERT and PREPAID_DESK_TLS_KEY go together: set both")
    scheme = "https" if certificate else "http"
    desk = DeskSettings(
        host=host,
        port=port,
        url=desk_url(env, "PREPAID_DESK_URL") or f"{scheme}://{host}:{port}",
        database_url=env.get("PREPAID_DESK_DATABASE_URL") or None,
        tls_certificate=certificate,
        tls_key=key,
        proxies=_proxies(env),
        secret=_secret(env),
        idle_seconds=60 * _number(env, "PREPAID_DESK_IDLE_MINUTES", 30, 1, 24 * 60),
        absolute_seconds=3600 * _number(env, "PREPAID_DESK_SESSION_HOURS", 10, 1, 24 * 7),
        oidc=_oidc(env),
    )
    if port is not None and (desk.is_public or (desk.is_https and certificate is None)):
        _require_safe(desk, env)
    return desk


def _require_safe(desk: DeskSettings, env: Mapping[str, str]) -> None:
    setting = f"PREPAID_DESK_HOST={desk.host!r}"
    if _is_loopback(desk.host):
        setting = "PREPAID_DESK_PROXY" if desk.proxies else f"PREPAID_DESK_URL={desk.url!r}"
    where = f"{setting} lets others reach the sign-off desk"
    if desk.tls_certificate is None and not desk.proxies:
        raise SettingError(
            f"{where}: set PREPAID_DESK_TLS_CERT and PREPAID_DESK_TLS_KEY, or PREPAID_DESK_PROXY to"
            " the address of a proxy that does TLS"
        )
    if desk.secret is None:
        raise SettingError(
            f"{where}: set PREPAID_DESK_SECRET to a random text of {SECRET_LENGTH} characters or"
            " more (openssl rand -hex 32)"
        )
    if not desk_url(env, "PREPAID_DESK_URL") or not desk.is_https:
        raise SettingError(
            f"{where}: set PREPAID_DESK_URL to its address, such as https://desk.example.com"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(env: Mapping[str, str]) -> int | None:
    text = env.get("PREPAID_DESK_PORT") or "3001"
    if text == "off":
        return None
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 65535:
        raise SettingError(
            f"PREPAID_DESK_PORT={text!r}: expected a whole number from 1 to 65535, or off"
        )
    return value


def _number(env: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
        raise SettingError(f"{name}={text!r}: expected a whole number from {lowest} to {highest}")
    return int(text)


def _file(env: Mapping[str, str], name: str) -> Path | None:
    if not (text := env.get(name)):
        return None
    path = Path(text).expanduser().resolve()
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise SettingError(f"{name}={text!r} cannot be read: {error.strerror}") from error


def _proxies(env: Mapping[str, str]) -> tuple[str, ...]:
    text = env.get("PREPAID_DESK_PROXY") or ""
    addresses = tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        for address in addresses:
            ip_network(address)
    except ValueError:
        raise SettingError(
            f"PREPAID_DESK_PROXY={text!r}: expected IP addresses or networks, separated by commas,"
            " such as 10.0.0.5"
        ) from None
    return addresses


def _secret(env: Mapping[str, str]) -> str | None:
    text = env.get("PREPAID_DESK_SECRET") or None
    if text is not None and len(text) < SECRET_LENGTH:
        # Not the value: it may be most of somebody's real secret.
        raise SettingError(
            f"PREPAID_DESK_SECRET has {len(text)} characters: expected {SECRET_LENGTH} or more"
        )
    return text


def _oidc(env: Mapping[str, str]) -> Oidc | None:
    names = ("PREPAID_OIDC_ISSUER", "PREPAID_OIDC_CLIENT_ID", "PREPAID_OIDC_CLIENT_SECRET")
    issuer, client_id, client_secret = (env.get(name) or "" for name in names)
    if not issuer:
        return None
    if missing := [name for name in names if not env.get(name)]:
        raise SettingError(f"PREPAID_OIDC_ISSUER is set: set {' and '.join(missing)} too")
    parts = urlsplit(issuer)
    if parts.scheme != "https" and not (parts.hostname and _is_loopback(parts.hostname)):
        raise SettingError(f"PREPAID_OIDC_ISSUER={issuer!r}: expected an https:// address")
    claim = env.get("PREPAID_OIDC_CLAIM") or "preferred_username"
    return Oidc(issuer.rstrip("/"), client_id, client_secret, claim)
