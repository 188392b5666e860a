"""The graph editor in a headless Chromium, for tests and for the pictures of the docs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from .api_client import ApiClient
from .errors import DevToolError

# What would lie over the graph, or ask for something, at the first start.
_QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.VueNodes.AutoScaleLayout": False,
}
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


def chromium_program() -> str | None:
    """Where Chromium lies on this machine, if it does."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. DevToolError where there is none on this machine."""
    program = chromium_program()
    if program is None:
        raise DevToolError("There is no Chromium on this machine: on Debian, apt-get install chromium.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def editor(browser: Any, client: ApiClient, width: int = 1600, height: int = 1000) -> Iterator[Any]:
    """A page with the graph editor of a host, ready for a workflow."""
    for name, value in _QUIET.items():
        answer = requests.post(f"{client.url}/api/settings/{name}", json=value, timeout=60)
        answer.raise_for_status()
    context = browser.new_context(
        viewport={"width": width, "height": height}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    wait_for_editor(page, client)
    try:
        yield page
    finally:
        context.close()


def wait_for_editor(page: Any, client: ApiClient) -> None:
    """Open the editor in a page, until it is ready for a workflow."""
    page.goto(client.url)
    page.wait_for_function("() => window.app && window.app.graph && window.app.rootGraph !== null")
    page.wait_for_function(
        "() => Object.keys(window.LiteGraph?.registered_node_types ?? {}).includes('ContinualTrain')"
    )
