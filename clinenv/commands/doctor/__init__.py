"""`clinenv doctor`: whether clinenv will work here, and what to mend where it will not."""
