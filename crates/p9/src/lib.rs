//! A 9P2000.L server whose exports cannot be left.
//!
//! The guest of a utility VM mounts host directories with Linux' own 9P client (`-t 9p -o trans=fd,
//! version=9p2000.L,aname=<export>,msize=…`) over a stream that it dials. This crate is the other end of that
//! stream. The guest is hostile: nothing it sends may reach a file outside the export, block the server, or make it
//! hold more than its [`ServerOptions`] allow.
//!
//! * [`Exports`] is the set of directories on offer; add and remove them while connections are served.
//! * [`Server`] serves one connection at a time for each [`Server::serve`] call, any number at once.
//!
//! How an export is kept closed: its root is opened once as an `O_PATH` handle. Every fid holds such a handle, and a
//! walk goes one name at a time with `openat2` under `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//! RESOLVE_NO_MAGICLINKS`. Symbolic links are handed to the guest, which follows them itself, in its own tree.
//! Only regular files and directories are ever opened; FIFOs, sockets and device nodes are shown, never opened.
//!
//! ```no_run
//! # async fn example(stream: tokio::net::UnixStream) -> Result<(), cofferdam_p9::P9Error> {
//! use std::sync::Arc;
//! use cofferdam_p9::{Export, Exports, Server, ServerOptions};
//!
//! let exports = Arc::new(Exports::new());
//! exports.add("1".into(), Export { path: "/srv/data".into(), read_only: true, allowed_names: None })?;
//! Server::new(exports, ServerOptions::default()).serve(stream).await
//! # }
//! ```
//!
//! Modules: [`wire`] turns bytes into messages and back; `node` and `resolve` are handles and walks; `export` and
//! `fid` say what a client may hold; `lock` keeps record locks; `ops` answers each message; `session`, `flight`
//! and `server` are one connection: its state, its requests under way, its stream.

mod buffer;
mod error;
mod export;
mod fid;
mod flight;
mod lock;
mod node;
mod ops;
mod qid;
mod resolve;
mod server;
mod session;
pub mod wire;

pub use error::P9Error;
pub use export::{Export, Exports};
pub use server::{Server, ServerOptions, raise_file_limit};
