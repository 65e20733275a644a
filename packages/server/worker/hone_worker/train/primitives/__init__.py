"""A training step in two halves, for those who write their own loop: gradients first, then the optimizer."""
