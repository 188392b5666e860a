"""What whoever is at the page should know now: in the log, and as the page's own kind of note."""

from __future__ import annotations

import logging

from . import server

NOTICE = "cns.notice"  # the name of the message


def tell(text: str, warns: bool = True) -> None:
    """warns: whether something is probably not as it was meant."""
    logging.log(logging.WARNING if warns else logging.INFO, f"CNS: {text}")
    server.push(NOTICE, {"text": text, "severity": "warn" if warns else "info"})
