"""The policies and JSON Schemas that are shipped: data only, read by `policy/load.py`."""
