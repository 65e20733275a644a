"""The base model that engine and trainer share, the adapters in it, and both on disk."""
