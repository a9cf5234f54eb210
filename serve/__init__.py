"""The runtime: base model, engine, adapters, API and command line."""
