"""The changes, in one line: `NNNN_title.py` is revision NNNN, and comes after the number before it."""
