"""Anthropic's Messages: its requests as chats, and the answers to them as its clients expect them."""
