"""LLMs that say whether two answers to a question are the same."""
