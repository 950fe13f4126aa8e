"""One scan of an image in an OCI layout, as a process: what `benchmarks.scan` runs beside syft."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from ocispec.blobs import choose_image
from ocispec.layout import Layout
from ocispec.platform import Platform
from scanner.advisories.store import AdvisoryStore
from scanner.scan import scan_image


def main(layout: str, store: str) -> None:
    """Scan the image called `bench` and print what was counted, and where the time went."""
    with AdvisoryStore.open(Path(store)) as advisories:
        opened = Layout.open(Path(layout))
        image = choose_image(opened, opened.find("bench"), Platform.parse("linux/amd64"))
        made = scan_image(image, advisories, now=datetime.now(UTC))
    counts = {"components": len(made.report.inventory.components), "unknowns": len(made.report.unknowns)}
    print(json.dumps({**counts, "reading_ms": made.reading_ms, "judging_ms": made.judging_ms}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
