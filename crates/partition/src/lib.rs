//! Cuts any MIL program into chunks: cost, choice of cuts, interfaces, the resulting programs.
