"""Who can reach the desk is decided before it starts."""

from pathlib import Path

import pytest

from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.desk import load

SECRET = "0123456789abcdef0123456789abcdef"
PUBLIC = {"PREPAID_DESK_HOST": "0.0.0.0", "PREPAID_DESK_URL": "https://desk.example.com"}
PROXY = {"PREPAID_DESK_PROXY": "10.0.0.5, 10.1.0.0/16"}
KEY = {"PREPAID_DESK_SECRET": SECRET}
OIDC = {
    "PREPAID_OIDC_ISSUER": "https://login.example.com/",
    "PREPAID_OIDC_CLIENT_ID": "desk",
    "PREPAID_OIDC_CLIENT_SECRET": "s",
}


def test_as_it_comes_nobody_else_can_reach_it() -> None:
    desk = load({})
    assert (desk.host, desk.port, desk.url) == ("127.0.0.1", 3001, "http://127.0.0.1:3001")
    assert not desk.is_public
    assert not desk.is_https
    assert load({"PREPAID_DESK_PORT": "off"}).port is None


def test_public_with_all_that_it_needs(tmp_path: Path) -> None:
    proxied = load(PUBLIC | PROXY | KEY)
    assert proxied.proxy == ("10.0.0.5", "10.1.0.0/16")
    assert proxied.is_https
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.touch()
    key.touch()
    own = {"PREPAID_DESK_TLS_CERT": str(certificate), "PREPAID_DESK_TLS_KEY": str(key)}
    assert load(PUBLIC | own | KEY).tls_cert == certificate
    # Without a desk nothing is asked of it.
    assert load(PUBLIC | {"PREPAID_DESK_PORT": "off"}).port is None


REFUSED: list[tuple[dict[str, str], str]] = [
    (PUBLIC, "PREPAID_DESK_HOST='0.0.0.0' lets others reach the sign-off desk: set"),
    (PUBLIC | KEY, "or PREPAID_DESK_PROXY to the address of a proxy"),
    (PUBLIC | PROXY, "set PREPAID_DESK_SECRET to a random text of 32 characters"),
    ({"PREPAID_DESK_HOST": "::"} | PROXY | KEY, "set PREPAID_DESK_URL to its address"),
    (PROXY, "PREPAID_DESK_PROXY lets others reach"),
    (PROXY | KEY, "set PREPAID_DESK_URL to its address"),
    (PROXY | KEY | {"PREPAID_DESK_URL": "http://desk.example.com"}, "set PREPAID_DESK_URL to its"),
    # A proxy that nobody told the desk of.
    ({"PREPAID_DESK_URL": "http://desk.example.com"}, "'http://desk.example.com' lets"),
    ({"PREPAID_DESK_URL": "https://127.0.0.1:3001"} | KEY, "PREPAID_DESK_PROXY to the address"),
    ({"PREPAID_DESK_HOST": "192.0.2.7"}, "lets others reach"),
    ({"PREPAID_DESK_SECRET": "short"}, "PREPAID_DESK_SECRET has 5 characters: expected 32"),
    ({"PREPAID_DESK_PORT": "99999"}, "expected a whole number from 1 to 65535, or off"),
    ({"PREPAID_DESK_URL": "desk.example.com"}, "expected an address without a path"),
    ({"PREPAID_DESK_URL": "https://a.example.com/desk"}, "expected an address without a path"),
    ({"PREPAID_DESK_PROXY": "proxy.example.com"}, "expected IP addresses or networks"),
    ({"PREPAID_DESK_TLS_CERT": "/no/such/file"}, "cannot be read: No such file"),
    ({"PREPAID_DESK_TLS_KEY": __file__}, "go together: set both"),
    ({"PREPAID_DESK_IDLE_MINUTES": "0"}, "expected a whole number from 1 to 1440"),
    ({"PREPAID_DESK_SESSION_HOURS": "soon"}, "expected a whole number from 1 to 168"),
    ({"PREPAID_OIDC_ISSUER": "https://x"}, "set PREPAID_OIDC_CLIENT_ID and PREPAID_OIDC_CLIENT_SE"),
    (OIDC | {"PREPAID_OIDC_ISSUER": "http://login.example.com"}, "expected an https:// address"),
]


@pytest.mark.parametrize(("environ", "said"), REFUSED, ids=lambda value: str(value)[:60])
def test_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingError) as refused:
        load(environ)
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_provider() -> None:
    desk = load(OIDC)
    assert desk.oidc_issuer == "https://login.example.com"
    assert desk.oidc_claim == "preferred_username"
    assert load({}).oidc_issuer is None
