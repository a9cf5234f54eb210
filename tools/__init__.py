"""Tools that models may call: built-in ones, the user's own, those of MCP servers, and the agent that calls them."""
