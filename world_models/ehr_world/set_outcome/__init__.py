"""The learned ward that ships: one position a step, events as sets, a query an ordered item."""
