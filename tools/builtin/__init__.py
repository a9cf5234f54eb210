"""The tools that come with tunechat, one a module; each has `make`, which gives the LangChain tool."""
