"""Reports as SBOM documents: CycloneDX 1.6 and SPDX 2.3, in JSON, written by hand.

The libraries for them take 250 ms for 400 components, or 51 s to validate (DESIGN.md, decision 11); the tests
check ours against the official schema and with another tool's reader. The same report gives the same bytes.
"""
