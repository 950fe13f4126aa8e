"""Advisory, exploit and end-of-life records: imported once into one read-only file, looked up by package.

`build.py` imports OSV exports, CISA's KEV catalogue and endoflife.date's products; `store.py` answers from
the file that it wrote; `records.py` are the values; `interface.py` is what matching asks for.
"""
