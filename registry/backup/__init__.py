"""Backup of the catalogue to one file, and restoring it into an empty database of either kind (ADR 0102, 0103).

`file.py` is the format, `make.py` writes one, `restore.py` reads it back; `knowledge.py` sees to it that what the
signer remembers, and the backup does not, is not lost. Blobs and the signer's folder are not part of it.
"""
