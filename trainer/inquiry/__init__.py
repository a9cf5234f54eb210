"""What a server asks of the trainer before it trains: recipes completed, data checked and shown. Loads no torch."""
