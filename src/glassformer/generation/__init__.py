"""From a network to sequences of ids: decoding that knows nothing of a network but `start`, `step` and `select`."""
