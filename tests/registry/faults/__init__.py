"""Tests of what goes wrong below a registry, at every point where something can."""
