"""The Python side of Hone: renderer, embedded engine and trainer."""
