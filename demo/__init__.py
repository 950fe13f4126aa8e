"""The main job, shown: from a push with skopeo to a revocation that stops what runs. `make demo` runs it.

Everything goes through the `pratique` command and skopeo, as a user would; what is printed is what was run.
"""
