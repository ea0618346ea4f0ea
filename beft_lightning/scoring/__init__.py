"""How a bias term is chosen: approaches, the scoring pass, the table of scores and its report."""
