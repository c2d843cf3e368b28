//! Messages about one process (GCS bridge protocol §6, §8).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EXECUTE_PROCESS, Empty, Payload, RESIZE_CONSOLE, SIGNAL_PROCESS, WAIT_FOR_PROCESS};
use crate::{
    MessageType,
    json::{InString, is_zero},
};

/// A timeout that never comes.
pub const INFINITE_TIMEOUT_MS: u32 = u32::MAX;

/// The signal of a [`SignalProcess`] without options.
pub const SIGKILL: i32 = 9;

/// Starts a process. With the null container id: one in the VM itself. With a container's id and no
/// [`ProcessParameters::oci_process`]: the container's init. Otherwise: one more process in the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecuteProcess {
    /// What to start.
    pub settings: ExecuteProcessSettings,
}

impl ExecuteProcess {
    /// Starts what `parameters` say, with its streams on these ports.
    pub fn new(parameters: ProcessParameters, stdio: VsockStdioRelaySettings) -> Self {
        let process_parameters = InString(parameters);
        Self {
            settings: ExecuteProcessSettings {
                process_parameters,
                vsock_stdio_relay_settings: stdio,
            },
        }
    }
}

impl Payload for ExecuteProcess {
    const TYPE: MessageType = EXECUTE_PROCESS;
    type Reply = ExecuteProcessReply;
}

/// What to start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecuteProcessSettings {
    /// The process.
    pub process_parameters: InString<ProcessParameters>,
    /// The ports of its streams.
    pub vsock_stdio_relay_settings: VsockStdioRelaySettings,
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ProcessParameters {
    /// A command line to be split as a shell splits words; `command_args` wins.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command_line: String,
    /// The arguments, program first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command_args: Vec<String>,
    /// The user to run as.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The working directory.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_directory: String,
    /// The environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Give it a terminal.
    #[serde(skip_serializing_if = "is_zero")]
    pub emulate_console: bool,
    /// Connect its standard input.
    #[serde(skip_serializing_if = "is_zero")]
    pub create_std_in_pipe: bool,
    /// Connect its standard output.
    #[serde(skip_serializing_if = "is_zero")]
    pub create_std_out_pipe: bool,
    /// Connect its standard error.
    #[serde(skip_serializing_if = "is_zero")]
    pub create_std_err_pipe: bool,
    /// The terminal's size: height, then width, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u16; 2]>,
    /// Run in the VM itself, even with a container's id.
    #[serde(rename = "CreateInUtilityVM", skip_serializing_if = "is_zero")]
    pub create_in_utility_vm: bool,
    /// The OCI process object of an additional process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oci_process: Option<Value>,
}

/// The host's port for each stream. A stream is connected only where its `create_std_*_pipe` flag is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VsockStdioRelaySettings {
    /// Standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std_in: Option<u32>,
    /// Standard output; with a terminal, everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std_out: Option<u32>,
    /// Standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std_err: Option<u32>,
}

/// The process has started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecuteProcessReply {
    /// Its process id in the VM.
    pub process_id: u32,
}

/// Waits for a process to exit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitForProcess {
    /// Its process id in the VM.
    pub process_id: u32,
    /// How long to wait; [`INFINITE_TIMEOUT_MS`] waits for ever.
    pub timeout_in_ms: u32,
}

impl Payload for WaitForProcess {
    const TYPE: MessageType = WAIT_FOR_PROCESS;
    type Reply = WaitForProcessReply;
}

/// The process has exited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitForProcessReply {
    /// Its exit code; 128 plus the number of the signal that ended it.
    pub exit_code: u32,
}

/// Sends a signal to a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SignalProcess {
    /// Its process id in the VM.
    pub process_id: u32,
    /// Which signal; absent means SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<SignalOptions>,
}

impl SignalProcess {
    /// Sends SIGKILL.
    pub fn kill(process_id: u32) -> Self {
        Self {
            process_id,
            options: None,
        }
    }

    /// Sends `signal`, a Linux signal number.
    pub fn with_signal(process_id: u32, signal: i32) -> Self {
        Self {
            process_id,
            options: Some(SignalOptions { signal }),
        }
    }

    /// The signal meant: SIGKILL where none is given, or 0.
    pub fn signal(&self) -> i32 {
        match self.options {
            Some(SignalOptions { signal }) if signal != 0 => signal,
            _ => SIGKILL,
        }
    }
}

impl Payload for SignalProcess {
    const TYPE: MessageType = SIGNAL_PROCESS;
    type Reply = Empty;
}

/// Which signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SignalOptions {
    /// A Linux signal number.
    #[serde(skip_serializing_if = "is_zero")]
    pub signal: i32,
}

/// Sets the size of a process's terminal. No error if the terminal is closed already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ResizeConsole {
    /// Its process id in the VM.
    pub process_id: u32,
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

impl Payload for ResizeConsole {
    const TYPE: MessageType = RESIZE_CONSOLE;
    type Reply = Empty;
}
