"""Linux itself, thinly: constants, structures, one function per system call, and what is built of a few of them.

Nothing here knows what a container is. Everything raises OSError with the call's name and its object.
"""
