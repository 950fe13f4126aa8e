"""What is in an image: components by type, licences, findings, and what could not be told.

pratique scan oci:build:web
pratique scan --format cyclonedx --output sbom.json registry.example/shop/web:1
pratique scan --advisories advisories.db docker-archive:web.tar

Findings need advisory data: a snapshot made by `pratique advisories import --out FILE`, named by --advisories or
$PRATIQUE_ADVISORIES. Without it components and licences are shown, and each finding is unknown.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from pratique import clock, sources
from pratique.exits import CommandError, Exit
from pratique.output import line, size, table

if TYPE_CHECKING:
    from datetime import datetime

    from ocispec.image import Image
    from pratique.reading import ReadImage
    from scanner.model import Report

_LICENCES = 10
"""Licence ids that the table names."""

_SHOWN = 40
"""Findings and unknowns of a table; the other formats have all."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the source and the format."""
    sources.add_source(parser)
    parser.add_argument("--format", choices=("table", "json", "cyclonedx", "spdx"), default="table")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write there instead of standard output")
    parser.add_argument("--all", action="store_true", help="list every component, finding and unknown")
    add_advisories(parser)


def add_advisories(parser: argparse.ArgumentParser) -> None:
    """Declare `--advisories`."""
    default = os.environ.get("PRATIQUE_ADVISORIES")
    parser.add_argument(
        "--advisories",
        metavar="FILE",
        type=Path,
        default=Path(default) if default else None,
        help="snapshot of advisory data ($PRATIQUE_ADVISORIES)",
    )


def judge(read: ReadImage, advisories: Path | None, now: datetime) -> Report:
    """The report on an image that was read; without advisories every finding is unknown.

    Raises:
        ScanError: the snapshot cannot be used.
    """
    from registry.judge.works import NoAdvisories
    from scanner.advisories.store import AdvisoryStore
    from scanner.scan import scan

    if advisories is None:
        return scan(read.assembly.inventory, NoAdvisories(), now=now)
    with AdvisoryStore.open(advisories) as store:
        return scan(read.assembly.inventory, store, now=now)


def run(arguments: argparse.Namespace) -> int:
    """Scan, and print the report."""
    now = clock.now()
    read = sources.read_source(arguments, now)
    image = read.image
    report = judge(read, arguments.advisories, now)
    if arguments.format == "table":
        if arguments.output is not None:
            raise CommandError("--output: expected a format for programs with it (json, cyclonedx, spdx)")
        _show(read, report, everything=arguments.all, data=arguments.advisories is not None)
        return Exit.FINE
    content = _document(arguments.format, report, image, arguments.source, now)
    if arguments.output is not None:
        arguments.output.write_bytes(content)
    else:
        sys.stdout.write(content.decode("utf-8", "replace"))
    return Exit.FINE


def _document(name: str, report: Report, image: Image, source: str, now: datetime) -> bytes:
    from scanner.formats.cyclonedx import CycloneDx
    from scanner.formats.interface import Format, Subject, rendered
    from scanner.formats.spdx import Spdx

    if name == "json":
        from registry.assemble import clean
        from scanner import codec

        value = clean(codec.to_json(report))
        if not isinstance(value, dict):
            raise AssertionError("a report is an object")
        return rendered({"image": str(image.manifest.digest), **value})
    writer: Format = CycloneDx() if name == "cyclonedx" else Spdx()
    subject = Subject(name=source, digest=image.manifest.digest, diff_ids=image.config.diff_ids)
    return writer.encode(report, subject, created=now)


def _show(read: ReadImage, report: Report, *, everything: bool, data: bool) -> None:
    inventory = report.inventory
    system = inventory.operating_system
    bytes_read = sum(content.size for content in read.contents)
    members = sum(len(content.members) for content in read.contents)
    line(f"image {read.image.manifest.digest}")
    line(f"  system      {system.pretty_name or system.id if system else 'unknown'}")
    line(f"  layers      {len(read.contents)}, {size(bytes_read)}, {members} entries")
    line(f"  time        {read.reading_ms} ms to read, {read.assembling_ms} ms to put together")
    types = Counter(component.type for component in inventory.components)
    line(f"  components  {', '.join(f'{count} {kind}' for kind, count in sorted(types.items())) or 'none'}")
    licences = Counter(name for component in inventory.components for name in set(_ids(component.licences)))
    common = ", ".join(f"{name} ({count})" for name, count in licences.most_common(_LICENCES))
    common += f" and {len(licences) - _LICENCES} more" if len(licences) > _LICENCES else ""
    line(f"  licences    {common}")
    if everything:
        line()
        header = ("COMPONENT", "VERSION", "LICENCES", "LAYER", "SOURCE")
        rows = [(c.name, c.version, c.licences or "unknown", str(c.layer), c.location) for c in inventory.components]
        table(header, rows)
    _findings(report, everything=everything, data=data)
    _unknowns(report, everything=everything)


def _ids(expression: str) -> list[str]:
    """The licence ids of an SPDX expression."""
    words = expression.replace("(", " ").replace(")", " ").split()
    return [word for word in words if word not in {"AND", "OR", "WITH"}] or ["unknown"]


def _findings(report: Report, *, everything: bool, data: bool) -> None:
    counting = [finding for finding in report.findings if not finding.suppressed]
    line()
    if not data:
        line("findings: unknown, no advisory data given (--advisories)")
        return
    dates = ", ".join(f"{source.name} of {source.date[:10]}" for source in report.data)
    line(f"findings: {len(counting)} ({len(report.findings) - len(counting)} suppressed); data: {dates}")
    shown = report.findings if everything else counting[:_SHOWN]
    if shown:
        header = ("ID", "SEVERITY", "EXPLOITED", "COMPONENT", "LAYER", "FIXED IN", "NOTE")
        rows = [
            (
                finding.id,
                str(finding.severity),
                "yes" if finding.exploited else "",
                finding.purl,
                str(finding.layer),
                finding.fixed_in or (finding.ended if finding.kind == "end-of-life" else str(finding.fix_state)),
                finding.suppressed or ("end of life" if finding.kind == "end-of-life" else ""),
            )
            for finding in shown
        ]
        table(header, rows)
    if len(counting) > len(shown):
        line(f"and {len(counting) - len(shown)} more (--all)")


def _unknowns(report: Report, *, everything: bool) -> None:
    if not report.unknowns:
        return
    line()
    codes = Counter(unknown.code for unknown in report.unknowns)
    line(f"could not be told: {', '.join(f'{count} {code}' for code, count in sorted(codes.items()))}")
    for unknown in report.unknowns if everything else report.unknowns[:5]:
        line(f"  {unknown.code}: {unknown.subject}: {unknown.detail}")
