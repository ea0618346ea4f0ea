"""The page at ``/``: a text, and the answers of several adapters side by side."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.routing import Route

_PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
#: The page is one file, and sends to the server it is from only.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/``. It needs no key: it asks for the one that its requests need."""
    # First, as LitServe has a route there, too.
    app.router.routes.insert(0, Route("/", _page))


async def _page(request: Request) -> Response:
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"})
