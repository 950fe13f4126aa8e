"""Write a registry's catalogue to one file, while it works: accounts, manifests, tags, states, statements, audit.

pratique backup --config registry.yaml catalogue-2026-11-27.backup
    prints what is in it, and the file's digest, to be kept apart from it

Blobs are not in it: a copy of the store that is begun after the backup has all that it names. Neither is the signer's
folder (key and memory), which is kept apart, as a secret. Secrets of accounts stand in the file as hashes only; it is
readable by whoever made it alone. `pratique restore` reads it back, into SQLite or PostgreSQL.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pratique.exits import Exit
from pratique.output import line


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare settings and file."""
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="settings of the registry")
    parser.add_argument("file", metavar="BACKUP", type=Path, help="file to be made")


def run(arguments: argparse.Namespace) -> int:
    """Make the backup."""
    from registry import processes
    from registry.backup.make import make_backup
    from registry.settings import load

    processes.log_to_stderr("backup")
    made = make_backup(load(arguments.config), arguments.file, now=processes.utc_now())
    line(f"{made.path}: {made.rows} rows, {made.head.records} audit records up to {made.head.chain}")
    line(made.digest)
    return Exit.FINE
