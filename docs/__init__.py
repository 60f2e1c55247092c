"""What is written about the project, and the site made of it."""
