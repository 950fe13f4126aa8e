"""The chain as its users have it: the `pratique` command and skopeo, on a registry with all its processes."""
