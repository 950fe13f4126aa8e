"""The contract that every store keeps (registry/store/interface.py)."""
