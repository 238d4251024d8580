"""Ready flows whose layers have free Jacobians or are solved for: residual, continuous, masked, Gaussianizing."""
