"""The page at ``/`` as a person sees it, in a browser without a window."""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

fastapi = pytest.importorskip("fastapi", reason="comes with LitServe")
uvicorn = pytest.importorskip("uvicorn", reason="comes with LitServe")
testclient = pytest.importorskip("fastapi.testclient", reason="comes with LitServe")

#: What a person does: chooses all adapters, writes a text, and asks for a continuation.
HAND = """<script>
const waiting = setInterval(() => {
  const boxes = document.querySelectorAll("#adapters input");
  if (!boxes.length) return;
  clearInterval(waiting);
  boxes.forEach(box => box.click());
  element("text").value = "Where is it?";
  document.querySelector(".options button").click();
}, 20);
</script></body>"""


def application(asked: list[dict[str, Any]]) -> Any:
    """A server with three adapters, one of them without an answer, and a file that is none."""
    from beft_lightning.serving.page import add_page

    app = fastapi.FastAPI()
    add_page(app)
    page = testclient.TestClient(app).get("/")

    @app.get("/by_hand")
    def by_hand() -> Any:
        policy = {"Content-Security-Policy": page.headers["Content-Security-Policy"]}
        return fastapi.responses.HTMLResponse(page.text.replace("</body>", HAND), headers=policy)

    @app.get("/v1/models")
    def models() -> Any:
        listed = [{"id": name} for name in ("polite", "terse", "lost")]
        return {"data": listed, "broken": [{"id": "torn", "reason": "it is empty"}], "problem": None}

    @app.post("/v1/completions")
    def completions(body: dict[str, Any]) -> Any:
        asked.append(body)
        if body["model"] == "lost":
            return fastapi.responses.JSONResponse({"error": {"message": "no such adapter"}}, 404)
        return {"choices": [{"text": f"<b>{body['model']}</b> says: here"}]}

    return app


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The page's elements after a person has asked, and what the server has got."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium on PATH (Debian: apt-get install chromium)")
    asked: list[dict[str, Any]] = []
    server = uvicorn.Server(uvicorn.Config(application(asked), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/by_hand"
    profile: Path = tmp_path_factory.mktemp("profile")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    try:
        yield (
            subprocess.run(
                [browser, *options, "--virtual-time-budget=3000", "--dump-dom", address],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout,
            asked,
        )
    finally:
        server.should_exit = True
        thread.join()


def test_it_shows_the_answers_side_by_side(seen: tuple[str, list[dict[str, Any]]]) -> None:
    answers = re.findall(r"<article><h2>(.*?)</h2><p(.*?)>(.*?)</p></article>", seen[0])
    assert answers == [
        ("polite", "", "&lt;b&gt;polite&lt;/b&gt; says: here"),  # as text, not as an element
        ("terse", "", "&lt;b&gt;terse&lt;/b&gt; says: here"),
        ("lost", ' class="problem"', "no such adapter"),
    ]


def test_it_says_what_is_not_served(seen: tuple[str, list[dict[str, Any]]]) -> None:
    assert "torn is not served: it is empty" in seen[0]


def test_every_adapter_gets_the_same_text(seen: tuple[str, list[dict[str, Any]]]) -> None:
    request = {"prompt": "Where is it?", "max_tokens": 40, "temperature": 0}
    assert sorted(seen[1], key=str) == sorted(({"model": n, **request} for n in ("polite", "terse", "lost")), key=str)
