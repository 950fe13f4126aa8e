"""Where bytes are kept: one small protocol (`interface.py`) with two implementations, files and S3.

Keys are made in `keys.py` alone, from parsed digests and ids. A blob is visible only when it is complete and
verified. Imports ocispec and registry.errors; knows nothing of repositories, accounts or states.
"""
