"""What can be trained: one dataclass for each method."""
