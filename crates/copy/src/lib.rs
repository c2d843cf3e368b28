//! Files between directories and tar streams, for `cofferdam cp`: the same on both sides, the command's on the host and
//! the agent's in the VM.
//!
//! [`pack()`] writes what is at a path of a [`Root`] as a tar stream; [`unpack()`] makes files of such a stream at another, by
//! docker's rules for where things go ([`Target`]). Neither trusts what it is given: a container's paths are looked up with
//! its root as their end, and no entry of an archive leads out of the directory it is unpacked into, or through a symbolic
//! link in it.
//!
//! ```
//! use cofferdam_copy::{Policy, Root, Target, pack, unpack};
//!
//! let dir = tempfile::tempdir()?;
//! std::fs::create_dir(dir.path().join("from"))?;
//! std::fs::write(dir.path().join("from/note"), "hello")?;
//! let root = Root::inside(dir.path())?;
//! let mut stream = Vec::new();
//! pack(&root, b"/from", false, &mut stream, &mut |note| eprintln!("{note}"))?;
//! let target = Target::new(b"/to", b"/from");
//! unpack(stream.as_slice(), &root, &target, &Policy::caller(), &mut |note| eprintln!("{note}"))?;
//! assert_eq!(std::fs::read(dir.path().join("to/note"))?, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod metadata;
mod order;
mod pack;
mod place;
mod root;
mod source;
mod tree;
mod unpack;

pub use error::CopyError;
pub use metadata::Policy;
pub use order::Order;
pub use pack::pack;
pub use place::Target;
pub use root::Root;
pub use unpack::unpack;

/// Hears of what was left out, one line each, and goes on.
pub type Notes<'a> = &'a mut dyn FnMut(String);
