"""Data for training: read from files as people have them, checked, rendered as the server renders, masked, packed."""
