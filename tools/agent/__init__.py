"""The agent: a chat model of a tunechat server, LangChain's agent loop, and our policy on what it may run."""
