"""The oracle of the ward: a mechanistic patient, its measurement, and a clinician."""
