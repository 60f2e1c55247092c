"""One organ system a file: its state's rates over a tick."""
