"""Hugging Face's names and settings for each architecture, and ours: one reversible map a file."""
