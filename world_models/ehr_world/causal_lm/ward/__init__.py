"""The causal language model as a ward world: stays go on in tokens, the chart shows what has come of them."""
