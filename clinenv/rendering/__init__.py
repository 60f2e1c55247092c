"""Pictures of a patient: ECG paper, trends over hours, a window."""
