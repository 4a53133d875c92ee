"""Benchmarks: each prints ratios against a peer from one run, checks the answer, and is never a timed test."""
