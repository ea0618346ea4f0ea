"""The commands beside Lightning's own: score, compare, plan and download."""
