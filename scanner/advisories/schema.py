"""The layout of a snapshot file: SQLite, written once by `build.py`, opened read-only by `store.py`.

```
meta      key, value                       format, date, counts: what `advisories status` shows; for each source,
                                           "newest NAME": the time of its newest record, if its records have one
source    name, kind, digest, date, records, broken
record    id, body                         one OSV record: canonical JSON of an Advisory without `affected`
affected  ecosystem, name, record, body    what that record says of one package: canonical JSON of [Affected]
broken    ecosystem, name, id, detail      records that could not be read, by the packages they name ("" if none)
exploited cve, added, due, ransomware
cycle     product, position, name, codename, eol, ended
purl      purl, product
```
"""

from __future__ import annotations

from typing import Final

FORMAT: Final = "1"
"""The version of this layout; a file of another is refused, and imported again."""

NEWEST: Final = "newest "
"""Begins the keys of the times of newest records."""

APPLICATION_ID: Final = 0x70726174
"""SQLite's application_id: "prat", so that another program's database is not taken for ours."""

TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE source (name TEXT, kind TEXT, digest TEXT, date TEXT, records INTEGER, broken INTEGER);
CREATE TABLE record (number INTEGER PRIMARY KEY, id TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE affected (ecosystem TEXT, name TEXT, record INTEGER, body TEXT);
CREATE TABLE broken (ecosystem TEXT, name TEXT, id TEXT, detail TEXT);
CREATE TABLE exploited (cve TEXT PRIMARY KEY, added TEXT, due TEXT, ransomware INTEGER) WITHOUT ROWID;
CREATE TABLE cycle (product TEXT, position INTEGER, name TEXT, codename TEXT, eol TEXT, ended INTEGER,
                    PRIMARY KEY (product, position)) WITHOUT ROWID;
CREATE TABLE purl (purl TEXT, product TEXT, PRIMARY KEY (purl, product)) WITHOUT ROWID;
"""

INDEXES: Final = """
CREATE INDEX affected_package ON affected (ecosystem, name);
CREATE INDEX broken_package ON broken (ecosystem, name);
"""
