"""The signer: a process of its own that alone holds the registry's private key.

It believes nobody: it verifies the evidence again, takes the Decision itself, and signs what follows from it.
`signer.py` is what it signs and what it refuses, `memory.py` what it may not forget, `server.py` the process
and `client.py` how the judge asks. Nothing here imports the catalogue, the store or the web.
"""
