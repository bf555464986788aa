"""Where a request comes from: what other sites' pages send is refused, whoever is signed in.

A page of another site can make a browser send almost anything, with the cookies of whoever uses it:
images, forms, links, ``fetch`` without CORS, websockets. What it cannot do is to choose the headers
Origin (RFC 6454) and Sec-Fetch-* (W3C Fetch Metadata), or to send JSON without being asked first.
"""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from prepaid_pipeline.settings.parsers import is_loopback

_READING = ("GET", "HEAD")
FROM_ELSEWHERE = "This was sent by a page of another site. Nothing was done.\n"
NO_ORIGIN = (
    "What changes something must say where it comes from (the header Origin). Programs send the"
    " token PREPAID_UI_TOKEN instead of a cookie.\n"
)
NOT_JSON = "Send it as application/json. Nothing was done.\n"
NOT_BY_GET = "Queries are sent by POST, as application/json.\n"


def is_navigation(connection: HTTPConnection) -> bool:
    """Whether somebody goes to a page, and it is not one that asks on its own."""
    if connection.scope["type"] != "http" or connection.scope["method"] not in _READING:
        return False
    mode = connection.headers.get("sec-fetch-mode")
    if mode is not None:
        return mode == "navigate"
    return "text/html" in connection.headers.get("accept", "")


def refusal(connection: HTTPConnection, own: str, *, has_cookie: bool) -> str | None:
    """Why this request is refused, or None.

    ``own`` is the address that people type; ``has_cookie`` says that a cookie is all that it has to
    show who sends it.
    """
    headers, origin = connection.headers, connection.headers.get("origin")
    site = headers.get("sec-fetch-site")
    listens = connection.scope["type"] == "websocket"
    reads = not listens and connection.scope["method"] in _READING
    if reads and is_navigation(connection):
        # A link from elsewhere is followed; a frame around the page is not.
        whole = headers.get("sec-fetch-dest", "document") == "document"
        return None if whole or site in ("same-origin", "none") else FROM_ELSEWHERE
    if origin is not None and not _is_own(origin, headers.get("host", ""), own):
        return FROM_ELSEWHERE
    # Not every browser has it with a websocket; all have an Origin there.
    if site not in (None, "same-origin", *(("none",) if reads else ())):
        return FROM_ELSEWHERE
    if reads or not has_cookie:
        return None
    if origin is None and (listens or site is None):
        return NO_ORIGIN
    return None


def is_json(connection: HTTPConnection) -> bool:
    """Whether the body is JSON. A type that only has the word in it is one any page may send."""
    kind = connection.headers.get("content-type", "").partition(";")[0]
    return kind.strip().lower() == "application/json"


def _is_own(origin: str, host: str, own: str) -> bool:
    """Whether that is the address people type, or, through a tunnel, this machine's own."""
    if origin == _origin(own):
        return True
    name = urlsplit(f"//{host}").hostname or ""
    return is_loopback(name) and origin == f"http://{host}"


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
