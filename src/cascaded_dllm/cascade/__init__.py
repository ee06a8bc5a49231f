"""What a cascade is: its stage lengths, and which tokens of a window every stage keeps. Pure Python."""
