"""Many sequences as one row of prefix trees, and the attention over it."""
