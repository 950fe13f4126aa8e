"""The rules, one file each; their table is in `policy/rules/table.py`, their seam in `interface.py`."""
