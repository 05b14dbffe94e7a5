"""What people see at /demo, in a browser; and that nothing else is to be had there."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from click.testing import CliRunner

from serving.server import main
from tests.serving.browser import CHROMIUM, Browser
from tests.serving.process import Server
from tests.serving.saved_models import Shop, save_half, save_shop

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

EVIL = '</script><img src=x onerror="document.title=1"><script>document.title=2</script>'
SAMPLES = {
    "users": [
        {"name": "ann", "columns": {"user": "ann", "liked": ["b", "d", "gone"]}},
        {"name": "bob", "columns": {"user": "bob", "liked": [""]}},
        {"name": EVIL, "columns": {"user": "eve", "liked": ["a"]}},
        {"name": "odd", "columns": {"user": "odd", "liked": ["a"], "shoes": 43}},
        {"name": "shy", "columns": {"user": "asks for too much", "liked": ["a"]}},
        {"name": "", "columns": {"user": "", "liked": ["a", "b", "c"]}},
    ],
    "histories": [{"name": "liked", "items": "liked", "attention": "attention_liked"}],
    "items": {
        "keys": ["a", "b", "c", "d"],
        "titles": ["Apple", "Bread", EVIL, None],
        "columns": {"product": ["a", "b", "c", "d"], "price": [2.0, 1.5, None, 4.0]},
    },
}


class Window(Shop):
    """It attends to events by their place, the more the higher the price; -1 for an unknown one."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "user"),
            tf.TensorSpec([None, None], tf.string, "liked"),
            tf.TensorSpec([None], tf.string, "product"),
            tf.TensorSpec([None], tf.float32, "price"),
        ]
    )
    def explain(self, user: Any, liked: Any, product: Any, price: Any) -> Any:
        shy = tf.reduce_all(user != "asks for too much")
        told = tf.debugging.Assert(shy, ["there is no more to say"])
        with tf.control_dependencies([told]):
            price = tf.where(tf.math.is_nan(price), -1.0, price)[:, tf.newaxis]
        place = tf.range(1.0, tf.cast(tf.shape(liked)[1], tf.float32) + 1)
        return {"attention_liked": tf.where(liked != "", place * price, 0.0)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models that recommend, do not, have no users to show, and are not there."""
    base = tmp_path_factory.mktemp("models")
    model = Window()
    functions = {"recommend": model.recommend, "explain": model.explain}
    tf.saved_model.save(model, str(base / "shop" / "1"), functions)
    save_half(base / "half" / "1", 1.0)
    save_shop(base / "bare" / "1")
    save_shop(base / "plain" / "1")
    for name in ("shop", "plain"):
        (base / name / "1" / "assets.extra").mkdir()
        (base / name / "1" / "assets.extra" / "demo.json").write_text(json.dumps(SAMPLES))
    save_half(base / "broken" / "1", 1.0)
    (base / "broken" / "1" / "assets.extra").mkdir()
    (base / "broken" / "1" / "assets.extra" / "demo.json").write_text('{"users": [')
    (base / "none").mkdir()
    listed = "".join(
        f'config {{ name: "{name}" base_path: "{base / name}" model_platform: "tensorflow" }}\n'
        for name in ("shop", "half", "bare", "plain", "broken", "none")
    )
    (base / "models.config").write_text(f"model_config_list {{ {listed} }}")
    running = Server(base / "models.config", base / "log", "--demo_page")
    try:
        for name in ("shop", "half", "bare", "plain", "broken"):
            running.wait_for(f"loaded {name} version 1")
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    running = Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture
def page(server: Server, browser: Browser) -> Browser:
    """The page as it is when it is opened."""
    browser.open(f"http://127.0.0.1:{server.rest_port}/demo")
    browser.wait_for("#status", "shop, version 1")
    return browser


def pick(page: Browser, select: str, value: str) -> None:
    page.run(
        f"(s => {{ s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')) }})"
        f"(document.querySelector('{select}'))"
    )


def lines(page: Browser, selector: str) -> list[str]:
    found = page.run(f"[...document.querySelectorAll('{selector}')].map(e => e.innerText)")
    return ["\n".join(text.split("\n")) for text in found]


@in_browser
def test_first_user_with_history_scores_of_both_stages_and_attention(page: Browser) -> None:
    options = page.run("[...document.querySelectorAll('#user option')].map(o => o.value)")
    assert options == ["ann", "bob", EVIL, "odd", "shy", ""]
    first, second, third = lines(page, "#items li")
    assert first.split("\n") == [
        "1. Apple",
        "2",
        *("ranking", "0.900", "retrieval", "1.80"),
        "Attends most to: gone · d · Bread",
    ]
    assert second.split("\n")[1:] == ["ranking", "0.700", "retrieval", "1.40"]
    assert third.startswith("3. e\n")  # of which the file knows nothing
    newest_first = [text.split("\n") for text in lines(page, "#histories li")]
    assert newest_first == [["gone", "6.00"], ["d", "4", "4.00"], ["Bread", "1.5", "2.00"]]
    widths = page.run("[...document.querySelectorAll('#histories .bar')].map(b => b.style.width)")
    assert [round(float(width.rstrip("%"))) for width in widths] == [100, 67, 33]
    assert page.complaints == []


@in_browser
def test_attention_is_that_of_the_item_that_is_picked(page: Browser) -> None:
    page.run("document.querySelector('[data-item=c]').click()")  # its price is not known
    page.wait_for("#histories li", "-3.00")
    assert [text.split("\n")[-1] for text in lines(page, "#histories li")] == [
        *("-3.00", "-2.00", "-1.00")
    ]
    assert len(page.run("[...document.querySelectorAll('#histories .negative')]")) == 3
    assert lines(page, "[aria-pressed=true] .title") == [f"2. {EVIL}"]
    page.run("document.querySelector('[data-item=e]').click()")  # nothing is known of it
    page.wait_for("#histories .hint", "Newest first.")
    assert [text.split("\n")[0] for text in lines(page, "#histories li")] == ["gone", "d", "Bread"]
    assert page.run("document.querySelector('#histories .bar')") is None


@in_browser
def test_another_user(page: Browser) -> None:
    pick(page, "#user", "bob")
    page.wait_for("#histories", "Nothing yet.")
    page.wait_for("#items", "5. e")
    titles = [text.split("\n")[0] for text in lines(page, "#items li")]
    assert titles == ["1. Apple", "2. Bread", f"3. {EVIL}", "4. d", "5. e"]
    page.run("history.back()")
    page.wait_for("#items", "Attends most to: gone")
    assert page.run("document.querySelector('#user').value") == "ann"


@in_browser
def test_a_user_without_a_name(page: Browser) -> None:
    pick(page, "#user", "")
    page.wait_for("#items", "2. e")
    assert [text.split("\n")[0] for text in lines(page, "#items li")] == ["1. d", "2. e"]


@in_browser
def test_numbers_are_sent_as_they_are(page: Browser) -> None:
    """Those that JavaScript would write or read as others."""
    row = {"user": "ann", "liked": ["a"], "product": "a", "price": 2e7}  # for it, whole
    asked = f"predict('explain', [{json.dumps(row)}]).then(answers => answers[0].attention_liked)"
    assert page.run(asked) == [2e7]
    assert page.run("encode(JSON.parse('[9007199254740993, 1e300]', exact), 'DT_INT64')") == (
        "[9007199254740993, 1e+300]"
    )


@in_browser
def test_what_a_model_says_is_text_and_never_html(page: Browser) -> None:
    pick(page, "#user", EVIL)
    page.wait_for("#items", EVIL)
    page.run("document.querySelector('[data-item=c]').click()")
    page.wait_for("#histories", f"“{EVIL}”")
    assert page.run("document.images.length + document.scripts.length") == 1
    assert page.run("document.title") == "Recommendations"


@in_browser
def test_the_policy_stops_foreign_scripts_and_requests(page: Browser, server: Server) -> None:
    script = "Object.assign(document.createElement('script'), {textContent: 'document.title = 3'})"
    page.run(f"document.body.append({script})")
    assert page.run("document.title") == "Recommendations"
    url = f"http://localhost:{server.rest_port}/v1/models/shop"  # to a browser, another server
    asked = f"fetch('{url}', {{mode: 'no-cors'}}).then(() => 'answered', () => 'stopped')"
    assert page.run(asked) == "stopped"
    for told in ("script-src", "connect-src"):
        assert any(told in text and "Policy" in text for text in page.complaints)


@in_browser
def test_the_request_that_is_shown_can_be_sent(page: Browser, server: Server) -> None:
    page.run("document.querySelector('details').open = true")
    head, _, body = page.text("#request-text").partition("\n\n")
    method, path = head.split()
    status, answer = server.call(method, path, body.encode())
    assert (status, answer["predictions"][0]["items"][0]) == (200, "a")


@in_browser
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("user=odd", ["The model does not take this request.", "does not have named input: shoes"]),
        ("user=zoe", ["There is no user “zoe”"]),
        ("model=half", ["“half” does not recommend"]),
        (
            "model=broken",
            [
                "The server failed (status 500)",
                "assets.extra/demo.json of the model cannot be read",
            ],
        ),
        ("model=bare", ["“bare” brings no users", "Export it again"]),
        ("model=none", ["This model is not loaded", "In the server's words: Servable not found"]),
    ],
)
def test_errors_are_told_in_plain_words(
    place: str, words: list[str], server: Server, browser: Browser
) -> None:
    browser.open(f"http://127.0.0.1:{server.rest_port}/demo#{place}")
    shown = browser.wait_for("#error", words[0])
    for text in words:
        assert text in shown
    assert browser.text("#items") == ""
    pick(browser, *(("#user", "bob") if "user" in place else ("#model", "shop")))
    browser.wait_for("#items", "1. Apple")
    assert browser.text("#error") == ""


@in_browser
def test_what_is_recommended_is_shown_even_if_it_cannot_be_explained(page: Browser) -> None:
    pick(page, "#user", "shy")
    assert "there is no more to say" in page.wait_for("#error", "does not take this request")
    assert lines(page, "#items .title")[0] == "1. Bread"


@in_browser
def test_a_model_without_attention(server: Server, browser: Browser) -> None:
    browser.open(f"http://127.0.0.1:{server.rest_port}/demo#model=plain&user=bob")
    browser.wait_for("#recommended-hint", "This model has no attention to show.")
    assert lines(browser, "#items .title")[0] == "1. Apple"


@in_browser
def test_a_server_that_cannot_be_reached(page: Browser) -> None:
    page.connect(False)
    pick(page, "#user", "bob")
    page.wait_for("#error", "The server cannot be reached. Is it still running?")
    page.connect(True)
    pick(page, "#user", "ann")
    page.wait_for("#items", "1. Apple")


def status_of(server: Server, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/demo", "/demo/samples"])
def test_there_is_no_page_without_the_flag(path: str, recommender: Server) -> None:
    assert status_of(recommender, path) == (404, '{"error": "Not Found"}')


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/demo/",
        "/demo.html",
        "/demo/demo.html",
        "/demo/../demo.html",
        "/demo/samples/",
        "/demo/samples/demo.json",
        "/demo/samples/../../server.py",
        "/demo/%2e%2e/server.py",
        "/demo/samples?model=../shop",
        "/demo/samples?model=shop/1/assets.extra/../../../half",
        "/demo/samples?model=%2Fetc%2Fpasswd",
    ],
)
def test_no_other_file_can_be_reached(path: str, server: Server) -> None:
    status, body = status_of(server, path)
    assert status == 404
    assert "error" in json.loads(body)


def test_samples_are_the_file_of_the_model(server: Server) -> None:
    names = ["shop", "half", "bare", "plain", "broken", "none"]
    for path in ("/demo/samples", "/demo/samples?model=shop"):
        status, body = status_of(server, path)
        assert status == 200
        assert json.loads(body) == {"models": names, "model": "shop", "samples": SAMPLES}
    assert json.loads(status_of(server, "/demo/samples?model=bare")[1])["samples"] is None


def test_the_page_needs_the_rest_api(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--demo_page", "--model_base_path", str(tmp_path)])
    assert done.exit_code == 1
    assert "--demo_page needs --rest_api_port" in done.output
