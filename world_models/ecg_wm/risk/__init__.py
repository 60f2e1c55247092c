"""The frozen risk predictor of ECGs under drugs: what it is, what it is trained on, how."""
