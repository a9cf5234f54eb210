"""OpenAI's Files: what jobs learn from, uploaded in a stream, listed, read and deleted."""
