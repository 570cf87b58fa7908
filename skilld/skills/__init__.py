"""What a skill is, where it lives, and how it is found."""
