"""Static context of a stay out of its discharge summary: by a language model, or by rules where none is to be had."""
