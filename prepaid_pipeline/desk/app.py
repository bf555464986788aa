"""The desk as an ASGI application: its addresses, who may use them, and what surrounds them."""

import secrets
from importlib.util import find_spec
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

from prepaid_pipeline.desk import rendering
from prepaid_pipeline.desk.guards import BodyDeadline, FormTokens, OnlyTls, SecureHeaders
from prepaid_pipeline.desk.navigation import ANYBODY, DECIDERS, ON_FEATURES, ON_PAYMENTS, Site
from prepaid_pipeline.desk.pages import (
    account,
    approvals,
    concessions,
    history,
    mails,
    overview,
    passing,
    payments,
    plans,
    quality,
    reports,
    reviews,
    signing_in,
)
from prepaid_pipeline.desk.routing import action, handle_fault, handle_missing, page
from prepaid_pipeline.desk.sessions import Sessions
from prepaid_pipeline.desk.visits import Desk
from prepaid_pipeline.errors import SettingError
from prepaid_pipeline.settings.desk import DeskSettings
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.teams import Team

_LARGEST_FORM = 512 * 1024


def build(engine: Engine, settings: Settings, desk: DeskSettings) -> Starlette:
    """The application on ``engine``, which is the desk's own login to the database."""
    secret = desk.secret or secrets.token_hex(32)
    routes = [*_routes(), *oidc_routes(desk, secret, Site())]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(SecureHeaders, https=desk.is_https),
            *([Middleware(OnlyTls, url=desk.url)] if desk.is_https else []),
            # Against another site's name that was pointed at this address (DNS rebinding).
            Middleware(TrustedHostMiddleware, allowed_hosts=_hosts(desk), www_redirect=False),
            Middleware(RequestBodyLimitMiddleware, max_body_size=_LARGEST_FORM),
            Middleware(BodyDeadline),
        ],
        exception_handlers={404: handle_missing, 405: handle_missing, 500: handle_fault},
    )
    app.state.desk = Desk(
        engine=engine,
        settings=settings,
        desk=desk,
        sessions=Sessions(engine, desk),
        tokens=FormTokens(secret, desk.absolute_seconds),
        messages=URLSafeTimedSerializer(secret, salt="desk message"),
        templates=rendering.environment(settings.timezone),
        site=Site(),
    )
    return app


def _routes() -> list[BaseRoute]:
    return [
        page("/sign-in", signing_in.sign_in),
        action("/sign-in", signing_in.check_password),
        action("/sign-out", signing_in.sign_out, *ANYBODY),
        page("/", overview.overview, *ANYBODY),
        page("/payments", payments.payments, *ON_PAYMENTS),
        page("/payments/confirm", approvals.confirm, Team.FINANCE),
        action("/payments/approve", approvals.approve, Team.FINANCE),
        page("/payments/approve", approvals.to_list, *ON_PAYMENTS),
        page("/payments/{task:int}", payments.payment, *ON_PAYMENTS),
        action("/payments/{task:int}/decide", payments.decide, Team.FINANCE),
        page("/payments/{task:int}/decide", payments.moved, *ON_PAYMENTS),
        action(
            "/tasks/{task:int}/reassign", payments.reassign, Team.FINANCE, Team.CUSTOMER_SUCCESS
        ),
        page("/parked", reviews.parked, *ON_PAYMENTS),
        page("/parked/{task:int}", reviews.parked_payment, *ON_PAYMENTS),
        action("/parked/{task:int}/assign", reviews.assign, Team.FINANCE),
        action("/parked/{task:int}/close", reviews.close, Team.FINANCE),
        page("/refunds", reviews.refunds, *ON_PAYMENTS),
        page("/refunds/{task:int}", reviews.refund, *ON_PAYMENTS),
        action("/refunds/{task:int}/close", reviews.close, Team.FINANCE),
        page("/concessions", concessions.concessions, *ON_PAYMENTS),
        page("/concessions/{task:int}", concessions.concession, *ON_PAYMENTS),
        action("/concessions/{task:int}/decide", concessions.decide, Team.FINANCE),
        page("/concessions/{task:int}/decide", concessions.moved, *ON_PAYMENTS),
        page("/quality", quality.checks, *ON_FEATURES),
        page("/quality/confirm", passing.confirm, Team.CUSTOMER_SUCCESS),
        action("/quality/pass", passing.passed, Team.CUSTOMER_SUCCESS),
        page("/quality/pass", passing.to_list, *ON_FEATURES),
        page("/quality/{task:int}", quality.check, *ON_FEATURES),
        action("/quality/{task:int}/decide", quality.decide, Team.CUSTOMER_SUCCESS),
        page("/held", plans.held, *DECIDERS),
        page("/plans", plans.find, *DECIDERS),
        page("/plans/{plan:int}", plans.plan, *DECIDERS),
        action("/plans/{plan:int}/release", plans.release, *DECIDERS),
        action("/plans/{plan:int}/address", plans.address, Team.CUSTOMER_SUCCESS),
        action("/plans/{plan:int}/void", plans.void, Team.FINANCE),
        action("/plans/{plan:int}/cancel", plans.cancel, Team.FINANCE),
        page("/mails", mails.mails, *ON_FEATURES),
        action("/mails/resend", mails.resend, *ON_FEATURES),
        page("/mails/{mail:int}", mails.mail, *ON_FEATURES),
        action("/mails/{mail:int}/settle", mails.settle, *ON_FEATURES),
        action("/mails/{mail:int}/address", mails.address, Team.CUSTOMER_SUCCESS),
        page("/history", history.history, *DECIDERS),
        page("/account", account.account, *ANYBODY),
        page("/reports", reports.reports, *ANYBODY),
        page("/reports/index.html", reports.index, *ANYBODY),
        page("/reports/{month:str}", reports.latest, *ANYBODY),
        page("/reports/{month:str}/{file:str}", reports.report, *ANYBODY),
        Route("/health", _health, methods=["GET"]),
        Mount("/static", StaticFiles(directory=rendering.STATIC)),
    ]


def oidc_routes(desk: DeskSettings, secret: str, site: Site) -> list[BaseRoute]:
    """The way to the sign-in provider and back, if there is one."""
    if desk.oidc_issuer is None:
        return []
    if find_spec("authlib") is None:
        raise SettingError(
            "PREPAID_OIDC_ISSUER is set: install the extra, pip install 'prepaid-pipeline[oidc]'"
        )
    from prepaid_pipeline.desk import oidc  # noqa: PLC0415  (an extra, not always installed)

    return oidc.routes(desk, secret, site)


def _hosts(desk: DeskSettings) -> list[str]:
    name = urlsplit(desk.url).hostname
    return ["127.0.0.1", "localhost", "[::1]", *([name] if name else [])]


def _health(request: Request) -> Response:  # noqa: ARG001
    return PlainTextResponse("ok\n")
