//! tickfan.

fn main() {}
