"""The page at ``/``: one file, before whatever else the application has there."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from beft_lightning import serving

fastapi = pytest.importorskip("fastapi", reason="comes with LitServe")
testclient = pytest.importorskip("fastapi.testclient", reason="comes with LitServe")

PAGE = Path(serving.__file__).with_name("page.html").read_text()


@pytest.fixture(scope="module")
def client() -> Any:
    from beft_lightning.serving.page import add_page

    app = fastapi.FastAPI()
    app.get("/")(lambda: "the application's own")
    add_page(app)
    return testclient.TestClient(app)


def test_it_is_shown_in_place_of_the_applications_own(client: Any) -> None:
    answer = client.get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.text == PAGE
    assert client.post("/").status_code == 405


def test_it_loads_nothing_from_elsewhere_and_sends_to_its_own_server_only(client: Any) -> None:
    policy = dict(part.split(" ", 1) for part in client.get("/").headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert not re.findall(r"(?:src|href)=|https?://|@import", PAGE)


def test_what_models_answer_is_never_read_as_html() -> None:
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", PAGE)


def test_it_asks_for_routes_that_there_are() -> None:
    offered = re.findall(r'<option value="([a-z/]+)">', PAGE)
    from beft_lightning.serving.routes import BankSpec

    spec = BankSpec({}, 1)
    spec.pre_setup(None)  # type: ignore[arg-type]
    assert set(offered) == {"completions", "chat/completions", "classify"}
    assert {f"/v1/{route}" for route in offered} <= {path for path, *_ in spec.endpoints}


def test_its_elements_are_closed() -> None:
    open_ones: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "input", "br", "link"):
                open_ones.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_ones.pop() == tag

    Reader().feed(PAGE)
    assert open_ones == []
