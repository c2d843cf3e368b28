//! Set-up, boot files, demo and checks of this repository.
fn main() {}
