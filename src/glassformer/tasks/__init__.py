"""What people use a network for: a `Model` with its verbs, objectives to train on, and scores of what it gives."""
