"""Networks made from a few numbers: sparse layers, convolutional, recurrent and attention networks."""
