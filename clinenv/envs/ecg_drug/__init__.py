"""In-hospital start of an antiarrhythmic drug: 48 h, an order every 2 h."""
