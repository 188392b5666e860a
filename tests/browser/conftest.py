"""The graph editor in headless Chromium. Without a Chromium on the machine these tests are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from graph_page import draw_with

from devtools import browser

if TYPE_CHECKING:
    from devtools.api_client import ApiClient


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser without a network. While it is open an event loop runs, so other tests could start none."""
    if browser.chromium_program() is None:
        pytest.skip("no Chromium on this machine: on Debian, apt-get install chromium")
    with browser.chromium() as found:
        yield found


@pytest.fixture
def editor(chromium: Any, live_host: ApiClient) -> Iterator[Any]:
    """A page with the graph editor of the live host, ready for a workflow; what it queued ends with it."""
    with browser.editor(chromium, live_host) as page:
        yield page
    live_host.clear()


@pytest.fixture(params=[False, True], ids=["classic", "nodes-2.0"])
def drawn(request: pytest.FixtureRequest, editor: Any) -> Iterator[Any]:
    """The editor, drawn by each of the two renderers."""
    draw_with(editor, request.param)
    yield editor
    draw_with(editor, False)
