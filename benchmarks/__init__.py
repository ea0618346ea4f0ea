"""Speed measurements, run by hand."""
