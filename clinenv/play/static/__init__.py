"""The page of `clinenv play` without a server: the learned world as ONNX files, and patients to start from."""
