"""Learned tokens in prompts."""

import ast
import json
import re

import pytest

from cns_core.prompt_tokens import check_tokens, replaced, tokens_in, unknown_tokens
from devtools.paths import ROOT


def test_tokens_are_told_from_what_else_has_brackets():
    prompt = "(<My-Dog>:1.2) and <my_mug> <3, a < b > c, <lora:x:1>, <my-dog>"
    assert tokens_in(prompt) == ["<my-dog>", "<my_mug>"]
    assert unknown_tokens(prompt, ["<my-dog>"]) == ["<my_mug>"]
    assert replaced("<A-b>s, <c>", {"<a-b>": "dog", "<c>": "mug"}) == "dogs, mug"


def test_what_is_told_names_the_prompt_the_token_and_what_there_is():
    check_tokens("The prompt", "a photo of <My-Dog>", ["<my-dog>"])
    check_tokens("The prompt", "no token", [])
    with pytest.raises(ValueError, match=r"The prompt 'a <my-cat>' names <my-cat>.*known then: <my-dog>"):
        check_tokens("The prompt", "a <my-cat>", ["<my-dog>"])


def test_texts_call_inputs_as_the_page_does():
    """The page shows 'batch size', and nowhere batch_size."""
    texts = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    ids = {name for node in texts.values() for name in node["inputs"] if "_" in name}
    named = re.compile(r"\b(" + "|".join(sorted(ids)) + r")\b")
    found = []
    for path in [*(ROOT / "cns_core").rglob("*.py"), *(ROOT / "nodes").glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [
            f"{path.name}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
            if " " in node.value and named.search(node.value)
        ]
    assert len(ids) > 40 and not found
