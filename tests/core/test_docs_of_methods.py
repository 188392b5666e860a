"""docs/methods.md tells of every method in the registry, and its defaults as they are."""

from pathlib import Path

import pytest

from cns_core.methods import METHODS
from cns_core.settings import described

DOCS = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")


def row(name):
    """Of the table of defaults; settings without a value of their own are left out."""
    method = METHODS[name]
    defaults = {**described(method.Selection), **described(method.Training)}
    told = [
        f"{setting} {default:g}" if isinstance(default, float) else f"{setting} {default}"
        for setting, (default, _) in defaults.items()
        if default != ""
    ]
    return f"| {name} | {method.prior} | {', '.join(told)} |"


@pytest.mark.parametrize("name", METHODS)
def test_the_defaults_are_told_as_they_are(name):
    _, _, table = DOCS.partition("## Defaults")
    assert row(name) in table.splitlines()


@pytest.mark.parametrize("name", METHODS)
def test_each_was_learned_once(name):
    _, _, shown = DOCS.partition("## One concept by each")
    assert f"\n| {name} | " in shown
