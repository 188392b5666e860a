"""`python -m devtools.build_locales` writes `locales/en/nodeDefs.json` from the nodes' own schemas.

Other languages are written by hand in the same form; `tests/host/test_locales.py` tells what they lack. The
editor reads a text as a message of vue-i18n, to which some characters mean something.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from cns_core.settings import clear_name

from .api_client import ApiClient
from .host_process import HostProcess
from .node_schema import ObjectInfo
from .paths import ROOT

LOCALES = ROOT / "locales"
CATEGORY = "CNS"
_SPECIAL = re.compile(r"[{}@|]")


def as_message(text: str) -> str:
    """A text as vue-i18n has to be given it."""
    return _SPECIAL.sub(lambda match: f"{{'{match.group()}'}}", text)


def as_text(message: str) -> str:
    """What the editor shows for a message."""
    return re.sub(r"\{'([{}@|])'\}", r"\1", message)


def node_texts(info: ObjectInfo) -> dict[str, Any]:
    """All that the editor shows of the pack's nodes, by node id."""
    texts: dict[str, Any] = {}
    for node_id, node in info.items():
        if node["category"] != CATEGORY:
            continue
        inputs = {}
        for name, spec in {**node["input"].get("required", {}), **node["input"].get("optional", {})}.items():
            inputs[name] = {"name": as_message(clear_name(name))}
            if len(spec) > 1 and spec[1].get("tooltip"):
                inputs[name]["tooltip"] = as_message(spec[1]["tooltip"])
        outputs = {
            str(number): {"name": as_message(clear_name(name) if name.islower() else name)}
            for number, name in enumerate(node["output_name"])
        }
        texts[node_id] = {
            "display_name": as_message(node["display_name"]),
            "description": as_message(node["description"]),
            "inputs": inputs,
            "outputs": outputs,
        }
    return texts


def as_file(texts: dict[str, Any]) -> str:
    """The same as a file's content."""
    return json.dumps(texts, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    """Ask a running host, or one started for it, for its nodes and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a running ComfyUI with this pack; default: start one")
    url = parser.parse_args().url
    if url:
        with ApiClient(url) as client:
            _write(client.get_json("/object_info"), LOCALES)
    else:
        with HostProcess() as host, ApiClient(host.url) as client:
            _write(client.get_json("/object_info"), LOCALES)


def _write(info: ObjectInfo, folder: Path) -> None:
    path = folder / "en" / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_file(node_texts(info)), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
