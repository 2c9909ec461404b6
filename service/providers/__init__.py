"""What calls of a provider's API have in common, whatever is asked: when, how long, how often."""
