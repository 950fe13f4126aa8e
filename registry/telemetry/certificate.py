"""When the certificate ends that the registry shows."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509


def ends(path: Path) -> datetime:
    """When the first certificate of a PEM file ends.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds none.
    """
    return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc
