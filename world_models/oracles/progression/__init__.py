"""The oracle of the clinic: conditions that come and go under treatment."""
