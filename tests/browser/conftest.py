"""The graph editor in headless Chromium. Without a Chromium on the machine these tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from graph_page import be_quiet, draw_with, open_editor

if TYPE_CHECKING:
    from devtools.api_client import ApiClient


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser without a network. While it is open an event loop runs, so other tests could start none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium on this machine: on Debian, apt-get install chromium")
    from playwright.sync_api import sync_playwright

    quiet = [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *quiet])
        yield browser
        browser.close()


@pytest.fixture
def editor(chromium: Any, live_host: ApiClient) -> Iterator[Any]:
    """A page with the graph editor of the live host, ready for a workflow."""
    be_quiet(live_host)
    context = chromium.new_context(
        viewport={"width": 1600, "height": 1000}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    open_editor(page, live_host)
    yield page
    context.close()


@pytest.fixture(params=[False, True], ids=["classic", "nodes-2.0"])
def drawn(request: pytest.FixtureRequest, editor: Any) -> Iterator[Any]:
    """The editor, drawn by each of the two renderers."""
    draw_with(editor, request.param)
    yield editor
    draw_with(editor, False)
