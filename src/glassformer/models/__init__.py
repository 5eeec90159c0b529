"""Model families, each an assembly of the parts in `layers`, their configuration and their published sizes."""
