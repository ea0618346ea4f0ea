"""The study behind the choice of a bias: which term, which approach, and when not to trust it."""
