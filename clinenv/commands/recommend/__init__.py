"""`clinenv recommend`: drugs and doses ranked by their simulated risk for the patient whose ECG was recorded."""
