"""Tests of registry/telemetry."""
