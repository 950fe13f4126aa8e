"""The HTTP API: the OCI distribution specification 1.1, one blueprint a subject, and pratique's own /api/v1.

Handlers parse, check rights, call the domain and answer; they raise domain errors, which `errors.py` renders from
one table. Names and digests are parsed in `base.py` before anything else sees them (R3).
"""
