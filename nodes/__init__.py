"""The nodes: a schema and one call each."""
