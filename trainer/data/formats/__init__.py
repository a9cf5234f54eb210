"""Forms that examples have in files, one a module, each read into the same samples."""
