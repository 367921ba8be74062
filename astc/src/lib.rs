//! Weights as ASTC textures: block codec, reference decoder, texture layout.
