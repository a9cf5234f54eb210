"""The HTTP side: OpenAI's API, health and metrics in front of one engine. Never imports torch."""
