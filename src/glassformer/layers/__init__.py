"""The parts of a Transformer: attention, feed-forward, positions, norms, the block, and the taps on every arrow."""
