"""Packages of Debian and its relatives: dpkg's database, and distroless images' `status.d`.

`database.py` reads the status, `files.py` says which files a package has, `evidence.py` whether the files bear the
database out, `cataloger.py` makes components of it.
"""
