"""What a host does with a cleared image: it proves it, and starts nothing else.

Owns the local store, admission, the plan of a sandbox (pure), its operations, the syscall layer, launching,
supervision and what is left of a container afterwards. May import ocispec, scanner and policy; never
registry. Starts reading at `launch.py`; `model.py` is the seam between admission and the sandbox.
"""
