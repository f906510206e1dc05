//! Wires the real clients and runs.

fn main() {}
