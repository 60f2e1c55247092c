"""Real patients: what the records of people can tell, and where they cannot."""
