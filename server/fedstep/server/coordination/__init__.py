"""Who is there, what they are asked, and how a round and a study go."""
