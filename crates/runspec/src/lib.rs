//! An image's configuration and a user's wishes, as `docker run` takes them, become an OCI runtime spec.
//!
//! A pure function: the caller reads files and variables, and makes the directories that [`Specified::directories`]
//! names. Where docker's documentation and docker's habit are clear they are followed; what a VM has in the place of a
//! docker daemon is said where it is decided ([`defaults`]).
//!
//! ```
//! use cofferdam_runspec::{ImageConfig, Place, Wishes, specify};
//!
//! let image = ImageConfig::from_document(&serde_json::json!({ "config": { "Cmd": ["sh"], "Env": ["A=1"] } })).unwrap();
//! let wishes = Wishes { command: vec!["ls".into(), "-l".into()], ..Wishes::default() };
//! let place = Place { layers: vec!["/store/layers/1".into()], ..Place::default() };
//! let specified = specify(&image, &wishes, &place).unwrap();
//! assert_eq!(specified.spec["process"]["args"], serde_json::json!(["ls", "-l"]));
//! ```

mod capabilities;
mod command;
pub mod defaults;
mod environment;
mod error;
mod image;
mod mount;
mod specify;
mod tmpfs;
mod volume;

pub use environment::{Variable, variables_of_file};
pub use error::SpecifyError;
pub use image::ImageConfig;
pub use mount::{Origin, WantedMount};
pub use specify::{Place, Specified, Wishes, specify};
pub use tmpfs::tmpfs;
pub use volume::volume;
