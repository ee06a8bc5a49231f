"""The importance of every word of a text, which decides in what order a cascade keeps tokens."""
