"""Say whether two texts ask the same."""
