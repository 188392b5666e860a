"""The library's routes over HTTP, on this process's ComfyUI folders: what they tell, and what they refuse."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from benchmarks.faults import samples
from cns_core.memory_file import load_memory, save_memory
from cns_core.thumbnails import jpeg_of


@pytest.fixture
def folder(pack, host_base) -> Path:
    """`models/concept_memory/`, empty."""
    asyncio.run(pack.comfy_entrypoint())
    place = host_base / "models" / "concept_memory"
    place.mkdir(parents=True, exist_ok=True)
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return place


@pytest.fixture
def call(folder):
    """Requests to the routes: `call("GET", path, ...)` gives status and decoded answer."""
    from ComfyUI_CNS.cns_core.host import library_routes, live

    routes = web.RouteTableDef()
    library_routes.add_routes(routes)
    live.add_routes(routes)

    async def send(method: str, path: str, **more: Any) -> tuple[int, Any]:
        app = web.Application()
        app.add_routes(routes)
        async with (
            TestClient(TestServer(app)) as client,
            client.request(method, path, **more) as answer,
        ):
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else await answer.read()

    return lambda *args, **more: asyncio.run(send(*args, **more))


@pytest.fixture
def dogs(folder) -> Path:
    path = folder / "dogs.safetensors"
    save_memory(path, samples.memory(0))
    return path


def files(call) -> dict[str, dict[str, Any]]:
    status, found = call("GET", "/cns/library")
    assert status == 200
    return {entry["file"]: entry for entry in found["files"]}


def test_it_tells_what_each_file_holds(call, dogs):
    entry = files(call)["dogs.safetensors"]
    assert entry["bytes"] == dogs.stat().st_size and entry["fault"] is None
    assert entry["base"] == "SD1 model abababababab"
    first, second, third = entry["concepts"]
    assert (first["name"], first["token"], first["class_word"]) == ("dog 0", "<dog-0>", "dog")
    assert (first["kind"], first["method"], first["steps"]) == ("subject", "directions", 3)
    assert first["learned_at"] == "2026-01-01T00:00:00+00:00"
    assert [c["thumbnail"] for c in (first, second, third)] == [True, True, False]
    status, picture = call("GET", "/cns/library/thumbnail?file=dogs.safetensors&concept=1&v=1")
    assert status == 200 and picture == load_memory(dogs).concepts[1].thumbnail
    status, answer = call("GET", "/cns/library/thumbnail?file=dogs.safetensors&concept=2")
    assert status == 400 and answer["error"] == "This concept has no thumbnail."
    status, details = call("GET", "/cns/library/concept?file=dogs.safetensors&concept=1")
    assert status == 200 and details["settings"]["train"] == {"steps": 3, "prior": "none"}
    assert details["losses"]["steps"] == 3 and set(details["losses"]["points"]) == {"diffusion", "guard"}


def test_files_of_another_model_than_the_last_one_are_marked(call, dogs, monkeypatch):
    from ComfyUI_CNS.cns_core.host import last_model

    monkeypatch.setattr(last_model, "_seen", [()])
    assert files(call)["dogs.safetensors"]["other_base"] is None
    last_model.note([load_memory(dogs).base])
    assert files(call)["dogs.safetensors"]["other_base"] is False
    last_model.note([dataclasses.replace(load_memory(dogs).base, family="SD2")])
    assert files(call)["dogs.safetensors"]["other_base"] is True


def test_a_damaged_file_is_listed_with_the_reason(call, dogs):
    damaged = dogs.with_name("damaged.safetensors")
    damaged.write_bytes(dogs.read_bytes()[:-10])
    found = files(call)
    assert found["dogs.safetensors"]["fault"] is None
    assert "damaged" in found["damaged.safetensors"]["fault"]
    assert found["damaged.safetensors"]["concepts"] == []
    status, answer = call("GET", "/cns/library/concept?file=damaged.safetensors&concept=0")
    assert status == 400 and "damaged.safetensors is damaged" in answer["error"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_file_that_no_node_can_load_is_listed_with_the_reason(call, dogs):
    dogs.with_name("a\x07b.safetensors").write_bytes(dogs.read_bytes())
    dogs.with_name("gone.safetensors").symlink_to("nowhere")
    found = files(call)
    assert found["dogs.safetensors"]["fault"] is None
    assert "U+0007" in found["a\x07b.safetensors"]["fault"]
    assert "There is no concept memory" in found["gone.safetensors"]["fault"]


def test_a_file_is_read_again_when_it_has_changed_and_only_then(call, dogs, monkeypatch):
    from ComfyUI_CNS.cns_core.host import library

    read = []
    original = library.load_memory
    monkeypatch.setattr(library, "load_memory", lambda path: read.append(path.name) or original(path))
    files(call)
    files(call)
    assert read == ["dogs.safetensors"]
    new = dataclasses.replace(samples.memory(0).concepts[2], thumbnail=jpeg_of(torch.rand(32, 32, 3)))
    memory = load_memory(dogs)
    save_memory(dogs, dataclasses.replace(memory, concepts=(*memory.concepts[:2], new)))
    assert [c["thumbnail"] for c in files(call)["dogs.safetensors"]["concepts"]] == [True, True, True]
    assert read == ["dogs.safetensors"] * 2


def test_renaming_moves_the_file_as_it_is(call, dogs, folder):
    content = dogs.read_bytes()
    body = {"file": "dogs.safetensors", "name": "pets/my dogs"}
    assert call("POST", "/cns/library/rename", json=body) == (200, {"file": "pets/my dogs.safetensors"})
    assert (folder / "pets" / "my dogs.safetensors").read_bytes() == content and not dogs.exists()
    assert list(files(call)) == [os.path.join("pets", "my dogs.safetensors")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../dogs", "begins or ends with a space or a dot"),
        ("/tmp/dogs", "a part of it is empty"),
        ("C:\\dogs", "no usable file name"),
        (".trash/dogs", "begins or ends with a space or a dot"),
        ("", "name is empty"),
        ("con", "a device on Windows"),
        ("a\nb", "control character"),
        ("cats", "There is a file cats.safetensors already"),
        ("x" * 2_000, "expected at most 1,024"),
    ],
)
def test_a_name_that_no_memory_may_be_saved_under_is_refused(call, dogs, folder, name, message):
    other = folder / "cats.safetensors"
    save_memory(other, samples.memory(1))
    before = {path: path.read_bytes() for path in (dogs, other)}
    status, answer = call("POST", "/cns/library/rename", json={"file": "dogs.safetensors", "name": name})
    assert status == 400 and message in answer["error"]
    assert {path: path.read_bytes() for path in (dogs, other)} == before


def test_what_is_deleted_lies_in_the_trash_and_comes_back(call, dogs, folder):
    content = dogs.read_bytes()
    status, answer = call("POST", "/cns/library/trash", json={"file": "dogs.safetensors"})
    assert status == 200 and not dogs.exists()
    assert files(call) == {}  # the loading nodes list the same names
    _, found = call("GET", "/cns/library")
    (gone,) = found["trash"]
    assert gone["file"] == "dogs.safetensors" and gone["name"] == answer["name"]
    save_memory(dogs, samples.memory(1))
    status, refused = call("POST", "/cns/library/restore", json={"name": gone["name"]})
    assert status == 400 and "There is a file dogs.safetensors already" in refused["error"]
    dogs.unlink()
    assert call("POST", "/cns/library/restore", json={"name": gone["name"]}) == (
        200,
        {"file": "dogs.safetensors"},
    )
    assert dogs.read_bytes() == content and call("GET", "/cns/library")[1]["trash"] == []
    assert list((folder / ".trash").iterdir()) == []
    status, refused = call("POST", "/cns/library/restore", json={"name": gone["name"]})
    assert status == 400 and "There is nothing named" in refused["error"]


OUTSIDE = ["../x.safetensors", "a/../../x.safetensors", "/etc/passwd", "..\\x.safetensors", "C:\\x", ".."]


@pytest.mark.parametrize("name", [*OUTSIDE, "none.safetensors", "notes.txt", "a\x00b", ".trash", ""])
def test_no_route_reaches_anything_but_memory_files(call, dogs, folder, name):
    (folder.parent / "x.safetensors").write_bytes(dogs.read_bytes())
    (folder / "notes.txt").write_text("mine")
    (folder / ".trash").mkdir()
    try:
        for path, body in (
            ("/cns/library/rename", {"file": name, "name": "stolen"}),
            ("/cns/library/trash", {"file": name}),
            ("/cns/library/restore", {"name": name}),
        ):
            status, answer = call("POST", path, json=body)
            assert status == 400 and answer["error"], path
        for path in ("/cns/library/concept", "/cns/library/thumbnail"):
            status, answer = call("GET", path, params={"file": name, "concept": "0"})
            assert status == 400 and answer["error"], path
        left = {p.name for p in folder.iterdir()} - {".cns.lock"}
        assert left == {"dogs.safetensors", "notes.txt", ".trash"}
        assert (folder.parent / "x.safetensors").is_file()
    finally:
        (folder.parent / "x.safetensors").unlink()


def test_the_trash_gives_back_nothing_but_what_was_put_there(call, dogs, folder):
    (folder / ".trash" / "old").mkdir(parents=True)
    (folder / ".trash" / "loose.deleted").write_text("x")
    (folder / ".trash" / "old" / "other.txt").write_text("x")
    for name in (
        "loose.deleted",
        "old/other.txt",
        "../dogs.safetensors",
        "old/../../dogs.safetensors",
        "old",
    ):
        status, _ = call("POST", "/cns/library/restore", json={"name": name})
        assert status == 400, name
    assert dogs.is_file() and not (folder / "loose.safetensors").exists()


@pytest.mark.parametrize("number", ["3", "-1", "1.5", "x", "", "99999999999999999999", "\u0663"])
def test_a_concept_that_is_not_there_is_refused(call, dogs, number):
    for path in ("/cns/library/concept", "/cns/library/thumbnail"):
        status, answer = call("GET", path, params={"file": "dogs.safetensors", "concept": number})
        assert status == 400 and "concept" in answer["error"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
@pytest.mark.parametrize(
    "path", ["/cns/library/rename", "/cns/library/trash", "/cns/library/restore", "/cns/stop"]
)
def test_what_another_web_site_could_send_changes_nothing(call, dogs, path, kind):
    body = b'{"file": "dogs.safetensors", "name": "stolen", "prompt_id": "p", "node": "1"}'
    status, answer = call("POST", path, data=body, headers={"Content-Type": kind})
    assert status == 415 and "expected application/json" in answer["error"]
    assert call("GET", path)[0] == 405 and dogs.is_file()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is no JSON"),
        (b"[1]", "expected an object"),
        (b"{", "is no JSON"),
        (b"[" * 60_000, "is no JSON"),
        (b"{}", "lacks 'file'"),
        (b'{"file": 5}', "file is 5, expected text"),
        (b'{"file": "' + b"x" * 70_000 + b'"}', "too long"),
    ],
)
def test_a_body_that_is_no_request_is_refused(call, body, message):
    headers = {"Content-Type": "application/json"}
    status, answer = call("POST", "/cns/library/trash", data=body, headers=headers)
    assert status == 400 and message in answer["error"]


def test_a_folder_that_cannot_be_written_is_told(call, dogs, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    status, answer = call("POST", "/cns/library/trash", json={"file": "dogs.safetensors"})
    assert status == 500 and "Permission denied" in answer["error"] and dogs.is_file()


def test_what_is_not_running_cannot_be_stopped(call):
    status, answer = call("POST", "/cns/stop", json={"prompt_id": "p", "node": "1"})
    assert status == 409 and "not running" in answer["error"]
    assert call("GET", "/cns/live") == (200, {"runs": []})
