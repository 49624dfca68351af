//! Synthetic checkpoints of any family, width, layout and dtype, from a seed.
