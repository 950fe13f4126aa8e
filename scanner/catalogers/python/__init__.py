"""Installed Python distributions: `*.dist-info` and `*.egg-info`, wherever they lie.

`distributions.py` reads the metadata and the lists of files, `evidence.py` says whether the files bear them out,
`cataloger.py` makes components of them.
"""
