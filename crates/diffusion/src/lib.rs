//! What the diffusion models are: configuration, names in a checkpoint, blocks to a MIL program.
