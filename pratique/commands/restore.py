"""Read a backup of a registry's catalogue into an empty database: SQLite or PostgreSQL, whatever it was made on.

pratique restore --config registry.yaml catalogue-2026-11-27.backup
    into the database that the settings name; the registry does not run meanwhile

The store must be there: each blob is looked for, and what is missing is named (exit code 1). What the signer's memory
knows and the backup does not (a newer revocation list, trust.json, policy, withdrawals) is taken in, so nothing that
was revoked comes back. Everything is judged again once the registry runs. Pushes since the backup are lost, and their
blobs are collected later.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pratique.exits import Exit
from pratique.output import line

SHOWN = 20
"""Missing blobs that are named."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare settings and file."""
    parser.add_argument("--config", metavar="FILE", type=Path, required=True, help="settings of the registry")
    parser.add_argument(
        "--older-memory", action="store_true", help="go on though the signer's memory is older than the backup"
    )
    parser.add_argument("file", metavar="BACKUP", type=Path, help="file that `pratique backup` made")


def run(arguments: argparse.Namespace) -> int:
    """Restore it, and say what came of it."""
    from registry import processes
    from registry.backup.restore import restore_backup
    from registry.settings import load

    processes.log_to_stderr("restore")
    settings = load(arguments.config)
    done = restore_backup(settings, arguments.file, now=processes.utc_now(), older_memory=arguments.older_memory)
    found = done.found
    line(f"{done.rows} rows of the backup of {done.head.made} restored")
    for note in done.notes:
        line(note)
    chain = "is sound" if not found.problems else "is broken"
    line(f"audit chain of {found.records} records {chain}; {found.covered} are under a signed checkpoint")
    for problem in found.problems[:SHOWN]:
        line(f"  {problem}")
    line(f"{found.blobs} blobs, {len(found.missing)} of them not in the store; evidence missing: {found.evidence}")
    for missing in found.missing[:SHOWN]:
        line(f"  {missing}")
    return Exit.FINE if found.sound else Exit.FAILED
