"""The desk's settings: where it listens, who may reach it, how long a sign-in lasts."""

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.environment import FromEnvironment, prefixed
from prepaid_pipeline.settings.parsers import (
    SECRET_LENGTH,
    is_loopback,
    parsed,
    parts,
    unguessable,
    whole_number,
)
from prepaid_pipeline.settings.sign_offs import DESK_URL

LOOPBACK = "127.0.0.1"
_OIDC = ("PREPAID_OIDC_ISSUER", "PREPAID_OIDC_CLIENT_ID", "PREPAID_OIDC_CLIENT_SECRET")


def _file(text: str) -> Path:
    path = Path(text).expanduser().resolve()
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"={text!r} cannot be read: {error.strerror}") from error


def _proxies(text: str) -> tuple[str, ...]:
    addresses = parts(text, ",")
    for address in addresses:
        ip_network(address)
    return addresses


def _issuer(text: str) -> str:
    address = urlsplit(text)
    if address.scheme != "https" and not (address.hostname and is_loopback(address.hostname)):
        raise ValueError(text)
    return text.rstrip("/")


def _own_url(others: dict[str, Any]) -> str:
    scheme = "https" if others["tls_cert"] else "http"
    return f"{scheme}://{others['host']}:{others['port']}"


class DeskSettings(FromEnvironment):
    """Raises SettingError for a desk that others can reach without TLS or a trusted proxy, a
    secret and an address.
    """

    model_config = SettingsConfigDict(alias_generator=prefixed("PREPAID_DESK_"))

    host: str = Field(LOOPBACK, description="the address on which it listens")
    port: Annotated[int | None, whole_number(1, 65535, none="off")] = Field(
        3001, description="its port; None: no desk"
    )
    tls_cert: Annotated[Path | None, BeforeValidator(_file)] = Field(
        None, description="a certificate with its chain (PEM)"
    )
    tls_key: Annotated[Path | None, BeforeValidator(_file)] = Field(
        None, description="the certificate's key (PEM)"
    )
    url: Annotated[str, DESK_URL] = Field(
        default_factory=_own_url, description="what people type, without a slash at the end"
    )
    database_url: str | None = Field(
        None, description="the database with the desk's own login; None: the login is made"
    )
    proxy: Annotated[
        tuple[str, ...],
        parsed(_proxies, "IP addresses or networks, separated by commas, such as 10.0.0.5"),
    ] = Field((), description="addresses whose X-Forwarded headers are believed")
    secret: Annotated[str | None, BeforeValidator(unguessable)] = Field(
        None, description="signs the forms' tokens; None: a new one at each start"
    )
    idle_minutes: Annotated[int, whole_number(1, 24 * 60)] = Field(
        30, description="minutes without a request after which a session ends"
    )
    session_hours: Annotated[int, whole_number(1, 24 * 7)] = Field(
        10, description="hours after which a session ends in any case"
    )
    oidc_issuer: Annotated[str | None, parsed(_issuer, "an https:// address")] = Field(
        None, validation_alias=_OIDC[0], description="a sign-in provider; None: passwords only"
    )
    oidc_client_id: str | None = Field(
        None, validation_alias=_OIDC[1], description="what the provider knows the desk by"
    )
    oidc_client_secret: str | None = Field(
        None, validation_alias=_OIDC[2], description="and lets it in by"
    )
    oidc_claim: str = Field(
        "preferred_username",
        validation_alias="PREPAID_OIDC_CLAIM",
        description="the claim that holds the person's name here",
    )

    @property
    def is_public(self) -> bool:
        """Whether others than this machine's users can reach it."""
        name = urlsplit(self.url).hostname or ""
        return bool(self.proxy) or not is_loopback(self.host) or not is_loopback(name)

    @property
    def is_https(self) -> bool:
        """Whether people reach it over TLS: cookies are then for TLS only."""
        return self.url.startswith("https://")

    @property
    def absolute_seconds(self) -> int:
        """After how many seconds a session ends in any case."""
        return 3600 * self.session_hours

    def cookie(self, name: str) -> str:
        """A cookie's name; the prefix makes browsers insist on TLS and on this very host."""
        return f"__Host-{name}" if self.is_https else name

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise SettingError(
                "PREPAID_DESK_TLS_CERT and PREPAID_DESK_TLS_KEY go together: set both"
            )
        values = (self.oidc_issuer, self.oidc_client_id, self.oidc_client_secret)
        missing = [name for name, value in zip(_OIDC, values, strict=True) if value is None]
        if self.oidc_issuer is not None and missing:
            raise SettingError(f"PREPAID_OIDC_ISSUER is set: set {' and '.join(missing)} too")
        return self

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.port is None or not (self.is_public or (self.is_https and self.tls_cert is None)):
            return self
        setting = f"PREPAID_DESK_HOST={self.host!r}"
        if is_loopback(self.host):
            setting = "PREPAID_DESK_PROXY" if self.proxy else f"PREPAID_DESK_URL={self.url!r}"
        if missing := self._missing():
            raise SettingError(f"{setting} lets others reach the sign-off desk: set {missing}")
        return self

    def _missing(self) -> str | None:
        """What a desk that others can reach does not have yet."""
        if self.tls_cert is None and not self.proxy:
            return (
                "PREPAID_DESK_TLS_CERT and PREPAID_DESK_TLS_KEY, or PREPAID_DESK_PROXY to the"
                " address of a proxy that terminates TLS"
            )
        if self.secret is None:
            return (
                f"PREPAID_DESK_SECRET to a random text of {SECRET_LENGTH} characters or more"
                " (openssl rand -hex 32)"
            )
        if "url" not in self.model_fields_set or not self.is_https:
            return "PREPAID_DESK_URL to its address, such as https://desk.example.com"
        return None


def load(environ: Mapping[str, str] | None = None) -> DeskSettings:
    """Read the desk's settings from ``environ`` (default: the process's own).

    Raises SettingError for a value that cannot be used, and for a desk that is not safe.
    """
    return DeskSettings.read(environ)
