"""From data and a recipe to an adapter that answers: a process of its own."""
