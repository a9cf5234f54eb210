"""Tools of MCP servers: started or reached as an `mcpServers` file says, watched, bounded, and run like any tool."""
