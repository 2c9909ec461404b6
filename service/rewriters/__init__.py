"""LLMs that rewrite a conversation's last message into one that stands alone."""
