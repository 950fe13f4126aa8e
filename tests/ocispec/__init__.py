"""Tests of ocispec."""
