"""The race: candidates are trained for a few batches, each alone, and judged by the loss on held-out batches."""
