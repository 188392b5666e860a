"""Errors of the development tools that a person can act on; `dev.py` prints them without a traceback."""

from __future__ import annotations


class DevToolError(Exception):
    """Something a person has to put right; the message says what was found and what to do next."""


class SetupError(DevToolError):
    """The development environment could not be made."""


class HostError(DevToolError):
    """The host did not start, or died."""
