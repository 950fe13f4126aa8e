"""What leaves the registry, and how: retention, garbage collection, and what keeps both from taking what is needed.

`leases.py` is the side of whoever stores bytes, `collector.py` the main path of a run; the statements on the catalogue
are in `registry/catalogue/`. May import the registry's catalogue, store, audit and rules, and of its judge the names of
derived objects; never its API. `registry/judge/collecting.py` begins the runs.
"""
