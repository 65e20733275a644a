"""What a GPU makes of the worker: `bench/gpu/all.py` runs every stage (docs/gpu.md)."""
