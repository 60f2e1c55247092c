"""The paper's form of the learned ward: a causal language model over text or quantile tokens."""
