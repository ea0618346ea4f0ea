"""Scores of bias terms: approaches, the scoring pass, the table of scores, the selection rule and the report."""
