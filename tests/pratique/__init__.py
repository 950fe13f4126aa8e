"""Tests of the command line: each verb as a person calls it, against real registries."""
