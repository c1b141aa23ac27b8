"""Benchmarks: `python -m tests.bench NAME`, or `make bench` for all. Results go to docs/benchmarks.md by hand."""
