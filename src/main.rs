//! The `compress-model` command.
fn main() {}
