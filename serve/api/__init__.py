"""The HTTP side: OpenAI-compatible routes, health, metrics. Never imports torch."""
