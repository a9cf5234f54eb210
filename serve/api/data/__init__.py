"""Data and recipes for front ends: what files hold, how a model reads them, what a training may be told."""
