"""Ready flows on vectors: autoregressive, monotone, spline and coupling flows."""
