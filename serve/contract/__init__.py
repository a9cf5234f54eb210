"""Plain data that processes and parts exchange. Imports neither torch nor FastAPI."""
