"""Dagster's UI as an ASGI application: our sign-in pages, and Dagster behind the guard."""

import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from urllib.parse import urlsplit

from itsdangerous import URLSafeTimedSerializer
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from prepaid_pipeline.desk import rendering
from prepaid_pipeline.desk.app import oidc_routes
from prepaid_pipeline.desk.guards import BodyDeadline, FormTokens, SecureHeaders
from prepaid_pipeline.desk.navigation import ANYBODY, Site
from prepaid_pipeline.desk.pages import account, signing_in
from prepaid_pipeline.desk.routing import action, handle_fault, page
from prepaid_pipeline.desk.visits import Desk
from prepaid_pipeline.operations.dagster_ui import links
from prepaid_pipeline.operations.dagster_ui.guard import Guard
from prepaid_pipeline.operations.dagster_ui.visitors import UiSessions, Visitors
from prepaid_pipeline.settings.desk import DeskSettings
from prepaid_pipeline.settings.load import Settings

# A launch with thousands of chosen months is some hundred kilobytes.
_LARGEST_BODY = 16 << 20

# Its pages say themselves what they load. What a browser keeps is not shown again without asking:
# by then somebody may have signed out.
_DAGSTERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cache-Control": "private, no-cache",
    # It sets the header that this one has replaced, and a browser complains about the two.
    "Permissions-Policy": "",
}
_HINT = (
    "While nobody has a password, 'prepaid up' prints a link that signs you in, once;"
    " 'prepaid sign-in-link' prints another."
)

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def build(
    engine: Engine,
    settings: Settings,
    desk: DeskSettings,
    dagster: ASGIApp,
    lifespan: Lifespan | None = None,
) -> Starlette:
    """The application around ``dagster``, Dagster's own; ``engine`` is the desk's login."""
    own = own_settings(settings, desk)
    site = Site("Dagster", "Dagster", urlsplit(own.url).path, (), _HINT)
    secret = own.secret or secrets.token_hex(32)
    sessions = UiSessions(engine, own)
    guarded = Guard(dagster, Visitors(sessions, settings.ui_token), own.url, site)
    answers = SecureHeaders(guarded, own.is_https, _DAGSTERS)
    app = Starlette(
        routes=[*_routes(site), *oidc_routes(own, secret, site), Mount("", app=answers)],
        middleware=[
            Middleware(SecureHeaders, https=own.is_https),
            # Against another site's name that was pointed at this address (DNS rebinding).
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts(own.url), www_redirect=False),
            Middleware(RequestBodyLimitMiddleware, max_body_size=_LARGEST_BODY),
            Middleware(BodyDeadline),
        ],
        exception_handlers={500: handle_fault},
        lifespan=lifespan,
    )
    app.state.desk = Desk(
        engine=engine,
        settings=settings,
        desk=own,
        sessions=sessions,
        tokens=FormTokens(secret, own.absolute_seconds),
        messages=URLSafeTimedSerializer(secret, salt="desk message"),
        templates=rendering.environment(settings.timezone),
        site=site,
    )
    return app


def own_settings(settings: Settings, desk: DeskSettings) -> DeskSettings:
    """The desk's settings of sign-ins, with the address of Dagster's UI."""
    return desk.model_copy(update={"url": settings.ui_url})


def hosts(url: str) -> list[str]:
    """The names that are answered: the one that people type, and this machine's own."""
    return ["127.0.0.1", "localhost", "[::1]", *filter(None, [urlsplit(url).hostname])]


def _routes(site: Site) -> list[BaseRoute]:
    return [
        Route(f"{site.home}/health", _health, methods=["GET"]),
        # Also without the path: a probe on this machine does not come through the proxy.
        *([Route("/health", _health, methods=["GET"])] if site.home else []),
        page(f"{site.home}/sign-in", signing_in.sign_in),
        action(f"{site.home}/sign-in", signing_in.check_password),
        page(f"{site.home}/sign-in/{{link:str}}", links.enter),
        action(f"{site.home}/sign-out", signing_in.sign_out, *ANYBODY),
        page(f"{site.home}/account", account.account, *ANYBODY),
        Mount(f"{site.home}/static", StaticFiles(directory=rendering.STATIC)),
    ]


def _health(request: Request) -> Response:  # noqa: ARG001
    return PlainTextResponse("ok\n")
