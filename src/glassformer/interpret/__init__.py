"""Looking inside a network: reading, editing and measuring what passes its sites."""
