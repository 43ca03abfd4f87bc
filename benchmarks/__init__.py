"""What it costs: each figure beside its limit. Run on an idle machine: ``python -m benchmarks``."""
