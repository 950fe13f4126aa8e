"""What may run: the policy, its rules, who may say so, and the signed result.

Owns the schema, rules, hierarchy, keys and trust, the statements that people and the registry sign,
Evidence, Decision and clearance. Imports ocispec and scanner; never registry or runtime. No I/O but in
`load.py` and `key_files.py`; no clock anywhere. Starts reading at `evaluate.py`.
"""
