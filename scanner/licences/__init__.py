"""Licences as SPDX expressions (SPDX specification 2.3, annex D), from what package formats say of them.

A licence that has a name but no SPDX id is written as `LicenseRef-…`, so that a policy sees it; a file in which
no licence can be recognised gives "", which means not known, and never "free".
"""
