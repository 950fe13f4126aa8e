"""Every signed statement as bytes, and back: `encode` and `decode`.

One module a family of statements; `frame.py` puts them into in-toto statements. Whose signature counts is
decided in `policy/trust.py`.
"""

from policy.wire.frame import decode, encode, predicate_type

__all__ = ["decode", "encode", "predicate_type"]
