"""Commands of their own, run by `hone setup` and `hone merge`."""
