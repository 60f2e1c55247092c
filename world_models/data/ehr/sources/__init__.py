"""What each source of hospital tables is like."""
