"""What keeps other sites out: a token in every form, Sec-Fetch-Site, and strict headers."""

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FIELD = "desk_token"
BODY_SECONDS = 30.0
# No script at all, nothing from elsewhere, forms go home, and nobody may frame a page.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
# A report is one file with its styles and drawings in it; it still may not run or load anything.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none';"
    " sandbox allow-popups allow-top-navigation allow-downloads"
)


class FormTokens:
    """Tokens that a form must send back; each is good for one session, and for so long."""

    def __init__(self, secret: str | None, seconds: int) -> None:
        self._signer = URLSafeTimedSerializer(secret or secrets.token_hex(32), salt="desk form")
        self._seconds = seconds

    def make(self, binding: str) -> str:
        """A token for the session (or the visitor) that ``binding`` stands for."""
        return self._signer.dumps(binding)

    def fits(self, token: str, binding: str) -> bool:
        """Whether the token was made for this very session, and is not too old."""
        try:
            made_for = self._signer.loads(token, max_age=self._seconds)
        except BadSignature:
            return False
        return isinstance(made_for, str) and hmac.compare_digest(made_for, binding)


def comes_from_elsewhere(request: Request) -> bool:
    """Whether the browser says that another site sent this form.

    Sec-Fetch-Site (W3C Fetch Metadata) is set by the browser and by no page; browsers without it
    still say the Origin.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


class OnlyTls:
    """Refuses what did not come over TLS, ours or the trusted proxy's.

    The server believes X-Forwarded-Proto of the proxies alone: whoever gets past the proxy to the
    port sends in plain text, and stays outside.
    """

    def __init__(self, app: ASGIApp, url: str) -> None:
        self._app = app
        self._text = (
            f"The sign-off desk is at {url}. (A proxy in front of it must be named in"
            " PREPAID_DESK_PROXY and send X-Forwarded-Proto: https.)\n"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what came over TLS, and questions about health."""
        if scope["type"] == "http" and scope["scheme"] != "https" and scope["path"] != "/health":
            await PlainTextResponse(self._text, 421)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BodyDeadline:
    """Gives up on a request whose body has not arrived in time: it would hold its place."""

    def __init__(self, app: ASGIApp, seconds: float = BODY_SECONDS) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; whoever reads its body gets HTTP 408 when the time is up."""
        deadline: float | None = None
        complete = scope["type"] != "http"

        async def timely() -> Message:
            nonlocal deadline, complete
            if complete:
                return await receive()
            if deadline is None:
                deadline = asyncio.get_running_loop().time() + self._seconds
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, headers={"Connection": "close"}) from None
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, timely, send)


class SecureHeaders:
    """Adds the headers to every answer that does not set its own.

    ``others`` replace the desk's; one that is empty is left out.
    """

    def __init__(self, app: ASGIApp, https: bool, others: Mapping[str, str] | None = None) -> None:
        self._app = app
        self._headers = {
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            # Not no-referrer: the browser would then send Origin: null with our own forms.
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
            "Cache-Control": "no-store",
        } | dict(others or {})
        self._headers = {name: value for name, value in self._headers.items() if value}
        if https:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete the answer's headers."""

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, complete if scope["type"] == "http" else send)
