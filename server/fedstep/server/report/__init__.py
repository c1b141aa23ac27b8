"""What a study leaves for people to look at."""
