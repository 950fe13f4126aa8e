"""Reading a layer for an assembly: the scanner sees each file, and the account files are kept."""

from __future__ import annotations

from typing import Final

from ocispec.entry import Entry
from ocispec.tar import Consumer
from policy.users import MAX_FILE
from scanner import facts

ACCOUNT_FILES: Final = (b"etc/passwd", b"etc/group")


class LayerVisitor:
    """Shows each file to the scanner, and keeps the account files."""

    def __init__(self) -> None:
        """Begin with nothing seen; `accounts` holds offset, path and content of each account file."""
        self.scanner = facts.LayerScanner()
        self.accounts: list[tuple[int, bytes, bytearray]] = []

    def file(self, entry: Entry) -> Consumer | None:
        """See `ocispec.tar.Visitor`."""
        scan = self.scanner.file(entry)
        if entry.path not in ACCOUNT_FILES or entry.size > MAX_FILE:
            return scan
        kept = bytearray()
        self.accounts.append((entry.offset, entry.path, kept))

        def both(chunk: memoryview | bytes) -> None:
            kept.extend(chunk)
            if scan is not None:
                scan(chunk)

        return both
