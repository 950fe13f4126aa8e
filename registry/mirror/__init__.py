"""Pull-through: repositories that are copies of another registry's, fetched when they are first asked for.

What is fetched is pushed, as by anybody: it is in quarantine until it is judged, and a policy can ask for a minimum age
since it was first seen here. `mirrors.py` says what is a copy of what, `asking.py` is what a request does, `fetch.py`
what the process of `process.py` does for it.
"""
