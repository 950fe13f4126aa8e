"""The image registry: the OCI distribution API, storage, catalogue, access, quarantine, signer and audit.

Owns what is pushed, in which state it is, and who may read it. Imports policy, scanner and ocispec; never
runtime, which it meets over HTTP and by value (Decision, clearance). Starts reading at `app.py`; the
processes are started by `serve.py`.
"""
