"""What JSON Schema an answer can be held to. Nothing here imports torch."""
