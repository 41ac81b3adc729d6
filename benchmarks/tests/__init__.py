"""Tests of the benchmark itself; nothing here is timed."""
