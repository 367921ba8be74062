//! Truncated SVD, recovery adapters and PEFT files.
