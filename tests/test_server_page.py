"""The server's page in a real browser: by keyboard alone, from a fact that is told to one that is forgotten."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server is not installed: pip install 'lmm[serve]'")
api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("there is no chromium", allow_module_level=True)

from scripted import ScriptedAdapter, install  # noqa: E402
from serving import serving  # noqa: E402

from lmm.files import journal, known  # noqa: E402

pytestmark = pytest.mark.slow
WAIT_MS = 60_000  # the machine may be busy


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    install()
    with serving(ScriptedAdapter(), tmp_path, "jotter") as served, api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        api.expect.set_options(timeout=WAIT_MS)
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.problems.append(request.url) if served.url not in request.url else None)
        page.goto(served.url)
        page.wait_for_selector("#model:not(:empty)")
        yield page
        browser.close()


def test_told_asked_why_and_forgotten_by_keyboard_alone(page: Any) -> None:
    keys, talk = page.keyboard, page.locator("#talk")
    keys.type("My sister's name is Vera.")  # the message has the focus at the start
    keys.press("Enter")
    page.wait_for_selector("#lessons li")
    assert "Vera" in page.locator("#lessons").inner_text()
    page.wait_for_selector("#send:visible")
    keys.type("What is my sister's name?")
    keys.press("Enter")
    api.expect(page.locator("#talk .reply button")).to_have_count(2)
    assert "Vera" in talk.locator(".reply").last.inner_text()
    keys.press("Shift+Tab")  # back from the message to the last reply's button
    assert page.evaluate("document.activeElement.textContent") == "Why?"
    keys.press("Enter")
    page.wait_for_selector("text=because of a lesson (0.9)")
    page.locator("#text").focus()
    while page.evaluate("document.activeElement.textContent") != "Forget":
        keys.press("Tab")
    keys.press("Enter")
    page.wait_for_selector("#none:visible")
    page.wait_for_selector("text=this cannot be undone")
    keys.type("What is my sister's name?")
    keys.press("Enter")
    api.expect(page.locator("#talk .reply button")).to_have_count(3)
    assert "You said" in talk.locator(".reply").last.inner_text()
    assert page.problems == []


def test_what_a_message_takes_back_is_forgotten_by_a_button_that_tells_what_stays(page: Any, tmp_path: Path) -> None:
    page.keyboard.type("My sister's name is Zorbina.")
    page.keyboard.press("Enter")
    page.wait_for_selector("#lessons li")
    page.wait_for_selector("#send:visible")
    [file] = Path(os.environ["LMM_DATA_DIR"]).glob("memories/*/*.safetensors")
    journal.settle(file)
    known.remember(shutil.copy(file, tmp_path / "copy.safetensors"), "memory")
    page.keyboard.type("Please forget my sister's name.")
    page.keyboard.press("Enter")
    page.click("text=Forget it")
    page.wait_for_selector("text=still in copy.safetensors; take it out there with: lmm memory forget")
    assert page.locator("#none").is_visible() and page.problems == []


def test_a_reply_is_stopped_and_a_user_is_another(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMM_TEST_TOKEN", "0.05")
    page.keyboard.type("tell me a long story")
    page.keyboard.press("Enter")
    page.wait_for_selector("#talk .reply:not(:empty)")
    page.keyboard.press("Escape")
    page.wait_for_selector("text=stopped")
    monkeypatch.setenv("LMM_TEST_TOKEN", "0")
    page.keyboard.type("<img src=x onerror=alert(1)>")  # what is said is text
    page.keyboard.press("Enter")
    page.wait_for_selector("text=You said: <img src=x")
    page.fill("#user", "bøb")
    page.keyboard.press("Tab")
    api.expect(page.locator("#talk li")).to_have_count(0)
    page.fill("#text", "My sister's name is Ada.")
    page.keyboard.press("Enter")
    page.wait_for_selector("#lessons li")
    page.fill("#user", "")
    page.keyboard.press("Tab")
    page.wait_for_selector("#none:visible")
    assert page.problems == []
