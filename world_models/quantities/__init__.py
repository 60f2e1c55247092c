"""What each domain measures and orders: names, units, bounds."""
