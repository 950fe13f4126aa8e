"""Catalogers: one module an ecosystem, behind `interface.py`; `scanner/inventory.py` has the list of them."""
