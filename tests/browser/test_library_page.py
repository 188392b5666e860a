"""The library in the sidebar, and tokens that are offered while a prompt is typed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import samples
from cns_core.memory_file import load_memory, save_memory
from devtools.host_process import HostProcess

# A name is any printable text: it must never become a part of the page.
HOSTILE = "<img src=x onerror=alert(1)>"
PROMPT = """() => {
    const node = LiteGraph.createNode('CLIPTextEncode');
    node.pos = [100, 100];
    app.graph.clear();
    app.graph.add(node);
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [500, 200];
    app.canvas.setDirty(true, true);
}"""
TEXT = "() => app.graph.nodes[0].widgets[0].value"


@pytest.fixture
def folder(live_process: HostProcess) -> Iterator[Path]:
    """Memories of dogs and cats, and a damaged file, in the host's folder; gone afterwards."""
    place = live_process.base / "models" / "concept_memory" / "page"
    dogs = samples.memory(0)
    first = dataclasses.replace(dogs.concepts[0], name=HOSTILE)
    save_memory(place / "dogs.safetensors", dataclasses.replace(dogs, concepts=(first, *dogs.concepts[1:])))
    save_memory(place / "cats.safetensors", samples.memory(1, stem="cat"))
    (place / "damaged.safetensors").write_bytes((place / "cats.safetensors").read_bytes()[:-9])
    yield place
    for path in place.iterdir():
        path.unlink()
    place.rmdir()


@pytest.fixture
def library(drawn: Any, folder: Path) -> Any:
    drawn.get_by_label("Concepts that were learned").click()
    drawn.locator(".cns-library .cns-file").first.wait_for()
    return drawn


def card(page: Any, name: str) -> Any:
    return page.locator(f'.cns-file[data-file="{name}"]')


def prompt_field(page: Any) -> Any:
    page.evaluate(PROMPT)
    field = page.locator("textarea.comfy-multiline-input:visible, .lg-node textarea:visible")
    field.wait_for()
    field.click()
    return field


def test_it_lists_copies_and_inserts(library: Any, folder: Path) -> None:
    dogs, damaged = card(library, "page/dogs.safetensors"), card(library, "page/damaged.safetensors")
    assert dogs.locator(".cns-token").all_text_contents() == ["<dog-0>", "<dog-1>", "<dog-2>"]
    assert "dog · subject · directions · 3 steps" in dogs.text_content()
    assert HOSTILE in dogs.text_content() and library.locator(".cns-library img[src='x']").count() == 0
    picture = dogs.locator("img").first
    picture.scroll_into_view_if_needed()
    library.wait_for_function("(image) => image.naturalWidth === 32", arg=picture.element_handle())
    assert dogs.locator("img").count() == 2 and dogs.locator(".cns-none").count() == 1
    assert "is damaged" in damaged.locator(".cns-fault").text_content()

    dogs.locator(".cns-token").first.click()
    assert library.evaluate("() => navigator.clipboard.readText()") == "<dog-0>"

    prompt_field(library)
    library.keyboard.type("a photo of")
    dogs.get_by_label("Insert into the prompt").nth(1).click()
    library.wait_for_function(f"() => ({TEXT})() === 'a photo of <dog-1>'")

    dogs.get_by_label("Settings and loss").first.click()
    details = dogs.locator(".cns-details").first
    details.locator("table").first.wait_for()
    assert "prior" in details.text_content() and details.locator("polyline").count() == 4

    library.get_by_label("Search concepts").fill("cat-1")
    assert card(library, "page/cats.safetensors").is_visible() and not dogs.is_visible()


def test_it_renames_deletes_and_puts_back(library: Any, folder: Path) -> None:
    digest = load_memory(folder / "dogs.safetensors").digest()
    card(library, "page/dogs.safetensors").get_by_label("Rename").click()
    asked = library.get_by_role("dialog").locator("input")
    asked.fill("page/cats")
    asked.press("Enter")
    library.get_by_text("There is a file cats.safetensors already").wait_for()
    assert (folder / "dogs.safetensors").exists()

    card(library, "page/dogs.safetensors").get_by_label("Rename").click()
    asked.fill("page/good dogs")
    asked.press("Enter")
    card(library, "page/good dogs.safetensors").wait_for()
    assert load_memory(folder / "good dogs.safetensors").digest() == digest

    card(library, "page/good dogs.safetensors").get_by_label("Delete").click()
    gone = library.locator('.cns-gone[data-file="page/good dogs.safetensors"]')
    gone.wait_for(state="attached")
    assert card(library, "page/good dogs.safetensors").count() == 0
    assert not (folder / "good dogs.safetensors").exists()
    library.locator(".cns-trash summary").click()
    gone.get_by_label("Put back").click()
    card(library, "page/good dogs.safetensors").wait_for()
    assert load_memory(folder / "good dogs.safetensors").digest() == digest


def test_tokens_are_offered_where_they_are_typed(drawn: Any, folder: Path) -> None:
    field, box = prompt_field(drawn), drawn.locator(".cns-completion")
    drawn.keyboard.type("a photo of <dog")
    box.wait_for()
    assert box.locator("b").all_text_contents() == ["<dog-0>", "<dog-1>", "<dog-2>"]
    drawn.keyboard.press("ArrowDown")
    drawn.keyboard.press("Tab")
    assert field.input_value() == "a photo of <dog-1>" and not box.is_visible()
    assert drawn.evaluate(TEXT) == "a photo of <dog-1>"
    assert drawn.evaluate("() => document.activeElement.tagName") == "TEXTAREA"

    drawn.keyboard.type(" and <ca")
    box.wait_for()
    drawn.keyboard.press("Escape")
    assert not box.is_visible() and field.input_value().endswith("and <ca")
    drawn.keyboard.type("t")
    box.wait_for()
    box.locator("div").nth(2).click()
    assert drawn.evaluate(TEXT) == "a photo of <dog-1> and <cat-2>"
    drawn.keyboard.type(" <nothing-like-it")
    assert not box.is_visible()
    drawn.keyboard.press("Tab")  # as ever
    assert (
        drawn.evaluate("() => document.activeElement.tagName") != "TEXTAREA"
        or drawn.evaluate("() => document.activeElement.value") != field.input_value()
    )
