"""Networks on disk: the native checkpoint folder, its tensors, and writing that survives being killed."""
