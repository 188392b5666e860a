"""`dev.py base` and `dev.py bench base` hand on what they are given."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devtools import base_command
from devtools.paths import ROOT, venv_python


@pytest.fixture
def dev() -> ModuleType:
    """dev.py as a module: the repository's root is not on sys.path."""
    spec = importlib.util.spec_from_file_location("dev", ROOT / "dev.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["vae", "--help"], ["--work", "here", "build", "--", "-x"]]
)
def test_all_that_follows_base_is_its_own(dev: ModuleType, words: list[str]) -> None:
    arguments = dev.parse_arguments(["base", *words])
    assert (arguments.command, arguments.words) == ("base", words)


def test_bench_is_the_base_tool_bench(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def words(*given: str) -> list[str]:
        arguments = dev.parse_arguments(["bench", "base", *given])
        return base_command.bench_words(arguments.size, arguments.work, arguments.packed)

    assert words() == ["bench", "--size", "s"]
    assert words("--size", "m", "--work", "w", "--packed", "f") == [
        *["--work", "w", "bench"],
        *["--size", "m", "--packed", "f"],
    ]
    for wrong in (["bench"], ["bench", "moon"], ["bench", "base", "--size", "xl"]):
        with pytest.raises(SystemExit):
            dev.parse_arguments(wrong)
    assert "invalid choice: 'moon'" in capsys.readouterr().err


def test_build_gets_the_hosts_tokenizer() -> None:
    comfyui = Path("host")
    given = ["--tokenizer", str(comfyui / "comfy" / "sd1_tokenizer")]

    def added(*words: str) -> list[str]:
        return base_command.with_tokenizer(words, comfyui)

    assert added("build") == ["build", *given]
    assert added("--work", "x", "build", "--seed", "1") == ["--work", "x", "build", *given, "--seed", "1"]
    assert added("build", "--tokenizer", "mine") == ["build", *given, "--tokenizer", "mine"]
    assert added("build", "--help") == ["build", *given, "--help"]
    for words in (["--work", "build", "vae"], ["--work=build", "vae", "--size", "m"], ["--help"], []):
        assert added(*words) == words


@pytest.mark.skipif(os.name == "nt", reason="there the tool is started as a child")
def test_the_base_tools_take_this_programs_place(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    # Where execve returns, as only here, the code for other systems would follow.
    monkeypatch.setattr(base_command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(base_command.subprocess, "call", lambda *_, **__: 0)
    monkeypatch.setenv("PYTHONPATH", "theirs")
    base_command.run_base(["vae", "--help"])
    [(program, words, environ)] = calls
    assert program == words[0] == str(venv_python())
    assert words[1:] == ["-m", "small_base", "vae", "--help"]
    assert environ["PYTHONPATH"] == os.pathsep.join([str(ROOT), "theirs"])
    assert environ["PATH"] == os.environ["PATH"]


def test_dev_hands_base_and_bench_over(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(dev, "ensure_environment", lambda: None)
    monkeypatch.setattr(dev, "VENV", Path(dev.sys.prefix))
    monkeypatch.setattr(dev, "run_base", lambda words: seen.append(words) or 7)
    for words in (["base", "vae", "--help"], ["bench", "base", "--size", "m"]):
        monkeypatch.setattr(dev.sys, "argv", ["dev.py", *words])
        assert dev.main() == 7
    assert seen == [["vae", "--help"], ["bench", "--size", "m"]]


def test_bench_speed_takes_its_own_words(dev: ModuleType) -> None:
    arguments = dev.parse_arguments(["bench", "speed", "--models", "sd15", "--help"])
    assert (arguments.command, arguments.words) == ("speed", ["--models", "sd15", "--help"])


def test_bench_learning_takes_its_own_words(dev: ModuleType) -> None:
    arguments = dev.parse_arguments(["bench", "learning", "--set", "1", "--help"])
    assert (arguments.command, arguments.words) == ("learning", ["--set", "1", "--help"])
