//! Devices by name, the data contract, seeds, losses and fused operations of fireproof.
