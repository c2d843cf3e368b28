//! A bundle's container and its owner, and the commands that ask it. Each bundle has owners of its own.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test target uses a part of it, and a test may panic"
)]

use std::{
    io::Read as _,
    process::{Child, Command, Output, Stdio},
};

use crate::bundle::Bundle;

/// The container's name.
pub(crate) const ID: &str = "web";

/// A command among the bundle's owners.
pub(crate) fn cofferdam(bundle: &Bundle, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    command.env("COFFERDAM_ROOT", bundle.path("owners")).args(args);
    command
}

/// Its output.
pub(crate) fn did(bundle: &Bundle, args: &[&str]) -> Output {
    cofferdam(bundle, args).output().unwrap()
}

/// What it said on standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the bundle's container in the foreground, until it says `ready`.
pub(crate) fn running(bundle: &Bundle) -> Child {
    let mut child = bundle
        .command()
        .env("COFFERDAM_ROOT", bundle.path("owners"))
        .arg(ID)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");
    child
}
