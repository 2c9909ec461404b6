"""What is learned from outcomes: how often answers are wrong, and what may be served."""
