"""Lightning's strategies, adapted to score, train and save a few vectors of a frozen model.

The biases and the head are a ten-thousandth of the model, so only the frozen weights are worth sharding over the
processes. :func:`~beft_lightning.strategies.adaptation.adapt` gives a trainer's strategy the few methods that the rest
of the package calls. Every strategy restores a checkpoint before it wraps the model, as the selection of what is
trained comes from there, and writes full tensors, so that any other strategy can read them.
"""
