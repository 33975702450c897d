"""Why a demo ends early."""

from __future__ import annotations


class DemoFailed(Exception):
    """The demo cannot go on; the text is the reason given to the user."""


class BadRecord(DemoFailed):
    """A line of a trace file is no trace record."""


class Interrupted(Exception):
    """A signal asked us to stop; the argument is its name."""
