"""The report of a study: one HTML file that needs nothing else, and its charts as pictures."""
