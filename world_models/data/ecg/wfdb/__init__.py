"""WFDB records: the header is checked, the wfdb library decodes, twelve leads come out."""
