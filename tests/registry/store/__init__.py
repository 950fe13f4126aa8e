"""Tests of the store: one contract, run on each engine."""
