"""The tests; `tests/<package>/test_<module>.py` mirrors the source, `tests/support/` has the builders."""
