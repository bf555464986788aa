"""Sign-in at an OpenID Connect provider: authorization code flow with PKCE.

The rules are those of OpenID Connect Core 1.0, section 3.1; Authlib checks state, nonce, issuer,
audience, times and the ID token's signature. Loaded only when PREPAID_OIDC_ISSUER is set, because
Authlib is an extra.
"""

import hashlib
from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from prepaid_pipeline.desk.navigation import Site
from prepaid_pipeline.desk.pages.signing_in import enter, own_path
from prepaid_pipeline.desk.routing import anybodys, trouble
from prepaid_pipeline.desk.visits import Desk, Visit
from prepaid_pipeline.settings.desk import DeskSettings

_SECONDS = 600
_NEXT = "next"


def routes(desk: DeskSettings, secret: str, site: Site) -> list[BaseRoute]:
    """``/oidc/start`` and ``/oidc/callback``, with a short-lived cookie between the two."""
    client = OAuth().register(
        "provider",
        client_id=desk.oidc_client_id,
        client_secret=desk.oidc_client_secret,
        server_metadata_url=f"{desk.oidc_issuer}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid profile email", "code_challenge_method": "S256"},
    )

    async def start(request: Request) -> Response:
        request.session.clear()
        request.session[_NEXT] = own_path(request.query_params.get("next", ""), site)
        try:
            answer: Response = await client.authorize_redirect(request, f"{desk.url}/oidc/callback")
        except (httpx2.HTTPError, AuthlibBaseError):
            text = "The sign-in provider does not answer. Try again later."
            return _refused(request, text, 502)
        return answer

    async def callback(request: Request) -> Response:
        where = own_path(request.session.get(_NEXT, ""), site)
        try:
            token = await client.authorize_access_token(request)
            claims: dict[str, Any] = token["userinfo"]
        except (httpx2.HTTPError, AuthlibBaseError, JoseError, KeyError, ValueError):
            return _refused(
                request, "The sign-in did not work, or took too long. Start it again from here."
            )
        request.session.clear()
        return await run_in_threadpool(_enter, request, claims, where)

    key = hashlib.sha256(f"desk oidc {secret}".encode()).hexdigest()
    session = Middleware(
        SessionMiddleware,
        secret_key=key,
        session_cookie="desk_oidc",
        max_age=_SECONDS,
        path=f"{site.home}/oidc",
        # Lax: the provider sends the browser back here from its own site.
        same_site="lax",
        https_only=desk.is_https,
    )
    found = [Route("/start", start), Route("/callback", callback)]
    return [Mount(f"{site.home}/oidc", routes=found, middleware=[session])]


def _enter(request: Request, claims: dict[str, Any], where: str) -> Response:
    desk: Desk = request.app.state.desk
    name = _name(desk, claims)
    if name is None or not desk.sessions.may_sign_in(name):
        return _refused(
            request,
            "The provider knows you, but there is no account for you here, or it is disabled. Ask"
            " your administrator.",
        )
    visit = Visit(desk, request, FormData(), desk.sessions.person(request))
    return enter(visit, name, where)


def _name(desk: Desk, claims: dict[str, Any]) -> str | None:
    claim = desk.desk.oidc_claim
    value = claims.get(claim)
    if not isinstance(value, str):
        return None
    if claim != "email":
        return value
    # Anybody can write an address that is not theirs into a profile.
    return desk.sessions.person_of(value) if claims.get("email_verified") is True else None


def _refused(request: Request, text: str, status: int = 403) -> Response:
    return trouble(anybodys(request), status, "Not signed in", text)
