"""What is in an image: components and their licences, and what advisories and dates say of them.

Owns catalogers per ecosystem, version orders, the advisory store and its matching, end of life, and
the SBOM formats. Imports ocispec and libraries only; never policy, registry or runtime. Starts reading
at `scan.py`.
"""
