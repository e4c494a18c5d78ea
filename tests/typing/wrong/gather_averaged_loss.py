"""A mean where gathering needs a value for each sample."""

from treenail.adapters.comm import SingleProcess, gather_samples

means = {"loss": 0.5}
gather_samples(SingleProcess(), means, [0])  # E: variable "B" of "gather_samples" cannot be "dict[str, float]"
