"""What stands before Dagster's application: where a request comes from, who sends it, and whether
they may.
"""

import asyncio
from contextlib import suppress

from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prepaid_pipeline.desk.navigation import Site
from prepaid_pipeline.desk.routing import to_sign_in
from prepaid_pipeline.operations.dagster_ui import origins
from prepaid_pipeline.operations.dagster_ui.visitors import VISITOR, Visitor, Visitors

# How long somebody who has signed out may still hear what a run says.
WATCH_SECONDS = 2.0
_POLICY_VIOLATION = 1008
_SIGN_IN = "You are not signed in, or your session has ended: load the page again to sign in."
_READS_ONLY = "Only the team engineering starts, stops or changes anything here. Nothing was done."
_AWAY = "The database does not answer at the moment. Please try again in a moment.\n"


class Guard:
    """Lets through to ``app`` what its visitor may do. ``own`` is the address that people type."""

    def __init__(self, app: ASGIApp, visitors: Visitors, own: str, site: Site) -> None:
        self._app = app
        self._visitors = visitors
        self._own = own
        self._site = site
        self._graphql = f"{site.home}/graphql"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or answer one request, or one websocket."""
        connection = HTTPConnection(scope)
        has_cookie = not {"authorization", "dagster-cloud-api-token"} & set(connection.headers)
        if refused := origins.refusal(connection, self._own, has_cookie=has_cookie):
            await _answer(PlainTextResponse(refused, 403), scope, receive, send)
            return
        awake = origins.is_navigation(connection)
        try:
            visitor = await run_in_threadpool(self._visitors.find, connection, awake=awake)
        except DBAPIError:
            await _answer(PlainTextResponse(_AWAY, 503), scope, receive, send)
            return
        if refusal := self._refusal(connection, visitor):
            await _answer(refusal, scope, receive, send)
            return
        assert visitor is not None
        scope[VISITOR] = visitor
        if scope["type"] == "websocket":
            await self._listen(visitor, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, connection: HTTPConnection, visitor: Visitor | None) -> Response | None:
        scope = connection.scope
        if visitor is None:
            if origins.is_navigation(connection):
                return to_sign_in(Request(scope), self._site)
            return _error(_SIGN_IN, 401)
        if scope["type"] == "websocket":
            return None
        # A query by GET could be one that changes something; who asks for a page gets Dagster's.
        if scope["method"] in ("GET", "HEAD"):
            asks = "text/html" not in connection.headers.get("accept", "")
            by_get = scope["path"] == self._graphql and asks
            return PlainTextResponse(origins.NOT_BY_GET, 405) if by_get else None
        if scope["method"] != "POST" or not origins.is_json(connection):
            return PlainTextResponse(origins.NOT_JSON, 415)
        # Dagster itself asks for each thing whether they may. This is in case it forgets one.
        if not visitor.may_write and scope["path"] != self._graphql:
            return _error(_READS_ONLY, 403)
        return None

    async def _listen(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a websocket on, and close it when its session ends."""
        over = False

        async def heard() -> Message:
            if over:
                return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}
            return await receive()

        async def said(message: Message) -> None:
            if not over:
                await send(message)

        app = asyncio.ensure_future(self._app(scope, heard, said))
        watch = asyncio.ensure_future(self._until_signed_out(visitor))
        try:
            await asyncio.wait((app, watch), return_when=asyncio.FIRST_COMPLETED)
            if app.done():
                await app
                return
            over = True
            app.cancel()
            await asyncio.wait((app,))
        finally:
            app.cancel()
            watch.cancel()
        closed = {"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "signed out"}
        with suppress(OSError):  # gone at this very moment
            await send(closed)

    async def _until_signed_out(self, visitor: Visitor) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if not await run_in_threadpool(self._visitors.is_still_in, visitor):
                    return
            except DBAPIError:
                return  # nobody can say that they may still listen


def may_not(request: Request, visitor: Visitor, query: str) -> Response | None:
    """The refusal of a query (GraphQL) that changes something, of somebody who may only read, and
    of any that did not come as it must.
    """
    if request.method != "POST":
        return PlainTextResponse(origins.NOT_BY_GET, 405)
    if visitor.may_write:
        return None
    try:
        document = parse(query)
    except GraphQLError:
        return None  # Dagster's own answer says what is wrong with it
    changes = any(
        isinstance(part, OperationDefinitionNode) and part.operation == OperationType.MUTATION
        for part in document.definitions
    )
    return _error(_READS_ONLY, 403) if changes else None


def _error(text: str, status: int) -> Response:
    """As GraphQL's answers say it, so that Dagster's pages show it."""
    return JSONResponse({"data": None, "errors": [{"message": text}]}, status)


async def _answer(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted: the browser is answered 403.
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    await response(scope, receive, send)
