"""The conformance suite of opencontainers/distribution-spec, run on this registry: `make conformance SUITE=BINARY`.

The suite is not ours, and is built outside of the repository. What it leaves out is explained in `explained.py`; a run
in which it left out anything else, or in which anything failed, is a failure.
"""
