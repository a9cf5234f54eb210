"""Adapters on disk and their life: read, checked, stored in versions, watched, counted. Imports no torch."""
