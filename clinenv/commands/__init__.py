"""The command line: `clinenv measure`, `simulate`, `counterfactual`, `worlds`."""
