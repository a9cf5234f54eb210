"""OpenAI's Responses: requests read as chats, replies and streams of items, and the store of what was answered."""
