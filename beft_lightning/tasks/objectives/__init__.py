"""How a model learns and answers: one objective for each kind of task."""
