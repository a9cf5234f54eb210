"""The token side, a process of its own: tokens in, tokens out."""
