"""The errors of the scanner: what broke. What was merely not understood is an `Unknown` in the report."""

from __future__ import annotations


class ScanError(Exception):
    """A scan could not be done, or a data source could not be read; says which object and why."""
