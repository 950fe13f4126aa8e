"""Tests of tokens: what is asked for, what is given, and what is believed."""
