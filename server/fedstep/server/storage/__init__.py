"""What a coordinator keeps: studies in a database, models in a folder of files named by their digest."""
