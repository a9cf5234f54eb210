"""What a data set is made of and what is wrong with it, before anything is trained on it."""
