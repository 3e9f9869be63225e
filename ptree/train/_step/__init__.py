"""One jitted step of training from a pure loss: its state, microbatches, averages of parameters, loss scaling, a short loop."""
