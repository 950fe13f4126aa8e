"""Tests of the HTTP API against a live registry."""
