"""Digests: `algorithm:encoded`, as in the image specification, descriptor.md section "Digests".

Only the registered algorithms whose length we can check are accepted, so a digest is safe to use as a
path or a key (R3: `sha256:../../` never gets this far).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from ocispec.errors import SpecError

HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A checked digest; `str()` gives `algorithm:hex`."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        """Refuse what is not exactly an algorithm we know and its number of lower-case hex digits."""
        length = HEX_LENGTH.get(self.algorithm)
        if length is None:
            raise SpecError(f"digest {self._shown()}: algorithm not supported, expected sha256 or sha512")
        if len(self.hex) != length or _HEX.fullmatch(self.hex) is None:
            raise SpecError(f"digest {self._shown()}: expected {length} lower-case hex digits after {self.algorithm}:")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Return the digest that `text` spells.

        Raises:
            SpecError: another grammar, algorithm, length or case.
        """
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise SpecError(f"digest {text[:160]!r}: expected algorithm:hex")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of `content`."""
        if algorithm not in HEX_LENGTH:
            raise SpecError(f"digest algorithm {algorithm[:40]!r} is not supported, expected sha256 or sha512")
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def _shown(self) -> str:
        return repr(f"{self.algorithm}:{self.hex}"[:160])

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
