//! Model compression: checkpoints in, 2-bit or texture-coded folders out.
