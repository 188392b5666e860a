"""`python -m devtools.build_workflows` writes the bundled workflows in both formats.

`workflows/*.json` is for the graph editor (the pack's templates), `workflows/api/*.json` for `/prompt`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .api_client import ApiClient
from .bundled import GRAPHS
from .host_process import HostProcess
from .node_schema import ObjectInfo
from .paths import ROOT
from .workflow_format import api_format, editor_format

FOLDER = ROOT / "workflows"


def build(info: ObjectInfo) -> dict[str, str]:
    """Path below `workflows/` to text, for both formats of every graph."""
    files: dict[str, str] = {}
    for describe in GRAPHS:
        graph = describe()
        files[f"{graph.name}.json"] = json.dumps(editor_format(graph, info), indent=1) + "\n"
        files[f"api/{graph.name}.json"] = json.dumps(api_format(graph, info), indent=1) + "\n"
    return files


def write(files: dict[str, str], folder: Path = FOLDER) -> None:
    """Write what `build` gave."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Ask a running host, or one started for it, for its nodes and write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a running ComfyUI with this pack; default: start one")
    url = parser.parse_args().url
    if url:
        with ApiClient(url) as client:
            write(build(client.get_json("/object_info")))
    else:
        with HostProcess() as host, ApiClient(host.url) as client:
            write(build(client.get_json("/object_info")))


if __name__ == "__main__":
    main()
