"""Detection benchmark: real models, really run attacks, hard benign clients, published detectors side by side."""
