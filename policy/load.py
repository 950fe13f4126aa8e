"""Reading a policy document: strict, bounded, checked by its JSON Schema, compiled to closures."""

from __future__ import annotations

from policy.settings import Policy


def load(document: bytes) -> Policy:
    """Return the policy in `document` (YAML or JSON); its digest is of exactly these bytes.

    Raises:
        PolicyError: not readable, an unknown key, or a value that is not what the schema says.
    """
    raise NotImplementedError


def load_verified(document: bytes) -> Policy:
    """`load` without the JSON Schema pass, for a document whose signature was verified (start path).

    As strict as `load`, but says less about what is wrong, and imports no jsonschema.

    Raises:
        PolicyError: as `load`.
    """
    raise NotImplementedError
