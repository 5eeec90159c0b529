"""Studies: questions about networks, answered by measuring, with what was found in one report."""
