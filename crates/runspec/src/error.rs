//! What can be wrong with what is asked for.

/// Why there is no spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecifyError {
    /// The image's configuration is not one.
    #[error("the image's configuration: {0}")]
    Image(String),
    /// Neither the image nor the user says what to run.
    #[error("no command specified: the image names none, and none was given")]
    NoCommand,
    /// `-v`.
    #[error("--volume {text}: {problem}")]
    Volume {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `--mount`.
    #[error("--mount {text}: {problem}")]
    Mount {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `--tmpfs`.
    #[error("--tmpfs {text}: {problem}")]
    Tmpfs {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two mounts at one place.
    #[error("duplicate mount point: {0}")]
    DuplicateMount(String),
    /// A working directory that is relative.
    #[error("the working directory `{0}` is invalid: it needs to be an absolute path")]
    WorkingDirectory(String),
    /// A variable.
    #[error("{place}: {problem}")]
    Variable {
        /// `--env`, or the file and its line.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A capability that there is not.
    #[error("invalid capability: `{0}`")]
    Capability(String),
    /// A host name the kernel would refuse.
    #[error("invalid host name `{0}`: it has 1 to 64 letters, digits, `-`, `_` or `.`")]
    HostName(String),
}
