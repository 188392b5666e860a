"""What the editor shows of the nodes, in every language that comes with the pack."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from devtools.api_client import ApiClient
from devtools.build_locales import CATEGORY, LOCALES, as_file, as_message, as_text, clear_name, node_texts
from devtools.paths import ROOT

LANGUAGES = sorted(path.name for path in LOCALES.iterdir())
OTHERS = [language for language in LANGUAGES if language != "en"]
# What is written the same in every language: tokens, code, names of files and folders, {}.
_SAID = re.compile(r'\bsay\("(\w+)"')
_FILLED_IN = re.compile(r"\{\w+\}")
_KEPT = re.compile(r"<[a-z-]+>|`[^`]+`|\{\}|\.(?:txt|safetensors)\b|models/\w+|embedding:[\w-]+")


def texts(language: str, name: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / name).read_text(encoding="utf-8"))


def leaves(tree: dict[str, Any], path: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


def test_english_is_what_the_nodes_say(live_host: ApiClient) -> None:
    written = (LOCALES / "en" / "nodeDefs.json").read_text(encoding="utf-8")
    assert written == as_file(node_texts(live_host.get_json("/object_info"))), (
        "locales/en/nodeDefs.json is stale: run python -m devtools.build_locales"
    )


def test_there_are_at_least_three_languages() -> None:
    assert {"en", "de", "zh"} <= set(LANGUAGES)


@pytest.mark.parametrize("name", ["nodeDefs.json", "main.json"])
@pytest.mark.parametrize("language", OTHERS)
def test_nothing_is_missing_and_what_must_not_be_translated_is_kept(language: str, name: str) -> None:
    english, other = leaves(texts("en", name)), leaves(texts(language, name))
    assert list(other) == list(english)
    for key, text in other.items():
        assert text.strip(), key
        kept = sorted(_KEPT.findall(as_text(english[key])))
        assert sorted(_KEPT.findall(as_text(text))) == kept, (key, text)
        if name == "nodeDefs.json":
            assert as_message(as_text(text)) == text, f"{key}: a character that means something to vue-i18n"
        else:  # the page fills in what stands in braces
            assert sorted(_FILLED_IN.findall(text)) == sorted(_FILLED_IN.findall(english[key])), key
    same = [key for key, text in other.items() if text == english[key] and " " in text]
    assert not same, "not translated"


def test_the_host_gives_them_to_the_editor(live_host: ApiClient) -> None:
    given = live_host.get_json("/i18n")
    for language in LANGUAGES:
        assert (
            given[language]["nodeDefs"]["ContinualTrain"]
            == texts(language, "nodeDefs.json")["ContinualTrain"]
        )
        assert given[language]["cns"] == texts(language, "main.json")["cns"]


def test_the_page_says_what_is_there_and_nothing_else() -> None:
    said = {key for path in (ROOT / "web").glob("*.js") for key in _SAID.findall(path.read_text("utf-8"))}
    assert said == set(texts("en", "main.json")["cns"])


def test_messages_and_texts() -> None:
    text = "{} stands for the token | a@b"
    assert as_text(as_message(text)) == text and "{'{'}" in as_message(text)
    assert clear_name("token_lr") == "token learning rate"


def test_every_node_has_a_help_page_that_tells_of_all_it_has(live_host: ApiClient) -> None:
    for node_id, node in live_host.get_json("/object_info").items():
        if node["category"] != CATEGORY:
            continue
        page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {node['display_name']}\n")
        assert f"]({node_id}.png)" in page and (ROOT / "web" / "docs" / f"{node_id}.png").is_file()
        names = [clear_name(n) for part in ("required", "optional") for n in node["input"].get(part, {})]
        missing = [name for name in names if f"**{name}**" not in page]
        assert not missing, (node_id, missing)
