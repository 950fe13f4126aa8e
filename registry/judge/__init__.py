"""The judge: reads layers, puts images together, gathers evidence, asks the signer, and writes states.

`worker.py` is the process, `queue.py` what others use to wake and wait for it. Nothing hostile is parsed in
it: that happens in confined children (`confine.py`), which the keeper forks.
"""
