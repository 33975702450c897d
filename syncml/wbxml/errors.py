"""What WBXML adds to the common documents: its error."""

from __future__ import annotations

from syncml.errors import MalformedMessage


class MalformedWbxml(MalformedMessage):
    """Octets that are no WBXML document of the expected type, or that exceed a limit."""
