"""The chain as its users have it: the `pratique` command and skopeo, on a registry with all its processes."""

import pytest

# Its assertions tell what they saw, as those of the tests do.
pytest.register_assert_rewrite("tests.chain.clear_line")
