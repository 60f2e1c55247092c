"""A page on the loopback interface to play with a simulated patient: games, sessions, server, and the page itself."""
