"""The command line: which tool gets what, and errors as a line instead of a traceback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from small_base import commands
from small_base.judge import evaluate
from small_base.layout import SIZES
from small_base.packed import packing


def test_bench_gives_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(evaluate, "run_bench", lambda *call: calls.append(call) or 1)
    assert commands.main(["--work", str(tmp_path), "bench"]) == 1
    assert commands.main(["--work", str(tmp_path), "bench", "--size", "m", "--packed", "f.xz"]) == 1
    assert calls == [(tmp_path, SIZES["s"], None), (tmp_path, SIZES["m"], Path("f.xz"))]


def test_pack_and_expand_get_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(packing, "pack", lambda *call: calls.append(call))
    monkeypatch.setattr(packing, "expand", lambda *call: calls.append(call))
    assert commands.main(["--work", str(tmp_path), "pack", "--size", "m", "--bits", "6"]) == 0
    assert commands.main(["--work", str(tmp_path), "pack", "--out", "there"]) == 0
    assert commands.main(["expand", "a.xz", "--out", "a.safetensors"]) == 0
    assert calls == [
        (tmp_path, SIZES["m"], tmp_path, 6),
        (tmp_path, SIZES["s"], Path("there"), 8),
        (Path("a.xz"), Path("a.safetensors")),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pack"], "base pack: .*run `clip` first"),
        (["vae"], "base vae: .*run `build` first"),
        (["expand", "absent.xz", "--out", "a.safetensors"], r"base expand: .*absent\.xz"),
        (["expand", "absent.xz", "--out", "a.ckpt"], r"base expand: a\.ckpt: name a"),
        (["build", "--tokenizer", "absent"], "base build: absent has no vocab.json"),
    ],
)
def test_what_is_missing_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert commands.main(["--work", str(tmp_path), *words]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.match(message, said)


@pytest.mark.parametrize("words", [[], ["pack", "--bits", "3"], ["vae", "--size", "xl"], ["build"]])
def test_what_is_not_understood_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main(words)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", ["build", "vae", "clip", "judge", "unet", "bench", "pack", "expand"])
def test_every_tool_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main([command, "--help"])
    assert ended.value.code == 0 and f"base {command}" in capsys.readouterr().out
