"""The models once more in plain Python, to test them; they share no code with them."""
