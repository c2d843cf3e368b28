//! The rules, by subject.

use cofferdam_conformance::frame::word;
use serde_json::{Value, json};

use super::{Bent, Rule, answer, parameters, request, spec, succeeded, swallowed, within};

pub(crate) const RULES: &[Rule] = &[
    request(
        "the spec's environment is lost",
        "container/init-runs-the-spec",
        |word, body| spec(word, body, |spec| spec["process"]["env"] = json!([])),
    ),
    request(
        "the host name is lost",
        "container/exec-runs-inside",
        |word, body| spec(word, body, |spec| spec["hostname"] = "another".into()),
    ),
    request(
        "CreateInUtilityVM is lost",
        "container/create-in-utility-vm",
        |word, body| {
            parameters(word, body, |all| {
                if all["CreateInUtilityVM"] == true {
                    *all = json!({"OciProcess": {"cwd": "/", "args": ["/bin/sh", "-c", "uname -n"]},
                              "CreateStdOutPipe": true});
                }
            })
        },
    ),
    request(
        "a further process is an init",
        "stdio/three-streams-exec",
        |word, body| parameters(word, body, |all| all["OciProcess"] = Value::Null),
    ),
    request(
        "the spec's terminal is lost",
        "terminal/of-a-containers-init",
        |word, body| spec(word, body, |spec| spec["process"]["terminal"] = false.into()),
    ),
    request(
        "a process's terminal is lost",
        "terminal/of-an-exec",
        |word, body| {
            parameters(word, body, |all| {
                all["EmulateConsole"] = false.into();
                if !all["OciProcess"].is_null() {
                    all["OciProcess"]["terminal"] = false.into();
                }
            })
        },
    ),
    request(
        "EmulateConsole is lost",
        "terminal/of-a-vm-process",
        |word, body| parameters(word, body, |all| all["EmulateConsole"] = false.into()),
    ),
    request(
        "a terminal keeps its size",
        "terminal/of-a-vm-process",
        |word, _| swallowed(word, word::RESIZE_CONSOLE),
    ),
    answer(
        "a late resize is an error",
        "terminal/resize-after-the-end",
        |word, body| {
            if word == word::RESIZE_CONSOLE {
                *body = json!({"Result": -1, "ErrorMessage": "the terminal is closed", "ActivityId": body["ActivityId"]});
            }
        },
    ),
    request(
        "an unknown process's terminal is resized",
        "resize/no-such-process",
        |word, _| swallowed(word, word::RESIZE_CONSOLE),
    ),
    request("signals to init are lost", "container/signal-init", |word, _| {
        swallowed(word, word::SIGNAL_PROCESS)
    }),
    request("all signals are KILL", "signal/the-one-given", |word, body| {
        if word == word::SIGNAL_PROCESS {
            body["Options"] = Value::Null;
        }
        Bent::Request
    }),
    request(
        "signals to the dead are delivered",
        "signal/ended-process",
        |word, _| swallowed(word, word::SIGNAL_PROCESS),
    ),
    answer(
        "all containers' pids are one",
        "container/pids-are-the-vms",
        |word, body| {
            if word == word::EXECUTE_PROCESS {
                body["ProcessId"] = 1.into();
            }
        },
    ),
    answer(
        "all exit codes are one",
        "container/several-at-once",
        |word, body| {
            if word == word::WAIT_FOR_PROCESS {
                body["ExitCode"] = 50.into();
            }
        },
    ),
    answer("all exit codes are 0", "wait/exit-code", |word, body| {
        if word == word::WAIT_FOR_PROCESS {
            body["ExitCode"] = 0.into();
        }
    }),
    answer(
        "exit codes are mixed up",
        "ordering/many-waits-for-many-processes",
        |word, body| {
            if let Some(code) = body["ExitCode"]
                .as_u64()
                .filter(|_| word == word::WAIT_FOR_PROCESS)
            {
                body["ExitCode"] = (code ^ 1).into();
            }
        },
    ),
    answer("an exit code has a sign", "execute/command-line", |word, body| {
        if word == word::WAIT_FOR_PROCESS {
            body["ExitCode"] = (-1).into();
        }
    }),
    request(
        "odd members are refused",
        "container/lenient-config",
        |word, body| {
            if word == word::CREATE && !body["SupportedVersions"].is_null() {
                return Bent::Answer(json!({"Result": -1, "ErrorMessage": "SupportedVersions"}));
            }
            Bent::Request
        },
    ),
    request(
        "a held container cannot be ended",
        "shutdown/before-the-start",
        |word, _| swallowed(word, word::SHUTDOWN_FORCED),
    ),
    answer(
        "the end of the dead is a general error",
        "shutdown/after-the-end",
        |word, body| {
            if word == word::SHUTDOWN_FORCED && body["Result"] != 0 {
                body["Result"] = (-2_147_467_259).into();
            }
        },
    ),
    request("bundles stay", "delete/removes-the-bundle", |word, _| {
        swallowed(word, word::DELETE_CONTAINER_STATE)
    }),
    answer(
        "what runs is said to be deleted",
        "delete/not-while-it-runs",
        |word, body| {
            succeeded(word, word::DELETE_CONTAINER_STATE, body);
        },
    ),
    answer(
        "the process list is empty",
        "properties/process-list",
        |word, body| {
            if word == word::GET_PROPERTIES {
                body["Properties"] = r#"{"ProcessList":[]}"#.into();
            }
        },
    ),
    answer("statistics are a list", "properties/statistics", |word, body| {
        if word == word::GET_PROPERTIES {
            within(body, "/Properties", |all| all["LCOWMetrics"] = json!([]));
        }
    }),
    answer(
        "Properties is an object",
        "properties/empty-and-unknown-queries",
        |word, body| {
            if word == word::GET_PROPERTIES {
                body["Properties"] = json!({});
            }
        },
    ),
    answer(
        "a long list is not cut",
        "limits/long-process-list",
        |word, body| {
            if word == word::GET_PROPERTIES {
                body["Properties"] = "x".repeat(70_000).into();
            }
        },
    ),
    request(
        "a process's terminal is lost",
        "terminal/input-nobody-reads",
        |word, body| parameters(word, body, |all| all["EmulateConsole"] = false.into()),
    ),
    request(
        "a stream is missing and nobody says so",
        "container/a-failed-dial-at-the-start",
        |word, _| swallowed(word, word::EXECUTE_PROCESS),
    ),
    request(
        "a further process's environment is lost",
        "container/exec-document",
        |word, body| {
            parameters(word, body, |all| {
                if !all["OciProcess"].is_null() {
                    all["OciProcess"]["env"] = Value::Null;
                }
            })
        },
    ),
    answer("there are no stacks", "stacks/of-the-agent", |word, body| {
        if word == word::DUMP_STACKS {
            body["GuestStacks"] = "".into();
        }
    }),
    answer(
        "the VM has a container's properties",
        "errors/vm-is-no-container",
        |word, body| {
            succeeded(word, word::GET_PROPERTIES, body);
        },
    ),
    answer(
        "a container without a root is there",
        "errors/container-without-root",
        |word, body| {
            succeeded(word, word::CREATE, body);
        },
    ),
    answer(
        "a broken JSON text is a general error",
        "errors/malformed-json-in-string",
        |word, body| {
            if word == word::EXECUTE_PROCESS {
                body["Result"] = (-2_147_467_259).into();
            }
        },
    ),
    request("numbers may be texts", "errors/wrong-member-types", |_, body| {
        if body["ProcessId"].is_string() {
            Bent::Answer(json!({"Result": 0, "ExitCode": 0}))
        } else {
            Bent::Request
        }
    }),
    request(
        "the output ends early",
        "limits/megabytes-of-a-container",
        |word, body| {
            spec(word, body, |spec| {
                spec["process"]["args"] = json!(["/bin/sh", "-c", "head -c 7000000"])
            })
        },
    ),
    request(
        "the end of the output is lost",
        "limits/megabytes-to-a-slow-reader",
        |word, body| {
            parameters(word, body, |all| {
                all["CommandArgs"][2] = "head -c 1048576 /dev/zero".into()
            })
        },
    ),
    request(
        "the container's outputs are one",
        "stdio/three-streams-init",
        |word, body| {
            spec(word, body, |spec| {
                spec["process"]["args"][2] = "cat; echo to stderr; exit 21".into()
            })
        },
    ),
    request(
        "a VM's process does not see its end of input",
        "stdio/half-close-is-the-end-vm",
        |word, body| parameters(word, body, |all| all["CommandArgs"][2] = "sleep 9; wc -c".into()),
    ),
    request(
        "output stays open after the end",
        "stdio/output-ends-with-the-process",
        |word, body| {
            parameters(word, body, |all| {
                all["CommandArgs"][2] = "echo done; (sleep 9) & exit 0".into()
            })
        },
    ),
    request(
        "after a reader has gone nothing runs",
        "stdio/a-reader-that-goes-away",
        |word, body| {
            parameters(word, body, |all| {
                if all["CommandArgs"][2] == "exit 8" {
                    all["CommandArgs"][2] = "exit 1".into();
                }
            })
        },
    ),
    request("an argument is split", "execute/command-args", |word, body| {
        parameters(word, body, |all| all["CommandArgs"][4] = "a b".into())
    }),
    request(
        "CommandLine is split at spaces only",
        "execute/command-line",
        |word, body| {
            parameters(word, body, |all| {
                let words: Vec<String> = all["CommandLine"]
                    .as_str()
                    .into_iter()
                    .flat_map(|line| line.split(' ').map(str::to_owned))
                    .collect();
                all["CommandArgs"] = words.into();
            })
        },
    ),
    request(
        "the VM's processes are a container's",
        "execute/in-the-vm-by-a-containers-id",
        |word, body| parameters(word, body, |all| all["CreateInUtilityVM"] = false.into()),
    ),
    request(
        "a program that is not there runs",
        "execute/no-such-program",
        |word, _| swallowed(word, word::EXECUTE_PROCESS),
    ),
    request("no program runs", "execute/no-command", |word, _| {
        swallowed(word, word::EXECUTE_PROCESS)
    }),
    answer("version 3 is chosen", "negotiation/version-4", |word, body| {
        if word == word::NEGOTIATE_PROTOCOL {
            body["Version"] = 3.into();
        }
    }),
    answer(
        "the highest version is chosen",
        "negotiation/range-around-4",
        |word, body| {
            if word == word::NEGOTIATE_PROTOCOL {
                body["Version"] = 9.into();
            }
        },
    ),
    answer(
        "unknown messages succeed",
        "frames/unknown-message",
        |word, body| {
            if word == 0x1010_0f01 {
                body["Result"] = 0.into();
            }
        },
    ),
    request(
        "unknown members are refused",
        "frames/unknown-members",
        |_, body| {
            if body["Unheard"].is_null() {
                Bent::Request
            } else {
                Bent::Answer(json!({"Result": -1, "ErrorMessage": "?"}))
            }
        },
    ),
    answer("escapes are not undone", "frames/escaped-letters", |_, body| {
        if body["ActivityId"].as_str().is_some_and(|text| text.contains('<')) {
            body["ActivityId"] = "\\u003ca".into();
        }
    }),
    answer(
        "a persistent memory that is not there is mounted",
        "settings/persistent-memory-that-is-not-there",
        |w, b| {
            succeeded(w, word::MODIFY_SETTINGS, b);
        },
    ),
    answer(
        "a device cannot be removed twice",
        "settings/scsi-device-removal",
        |word, body| {
            if word == word::MODIFY_SETTINGS {
                body["Result"] = (-1).into();
                body["ErrorMessage"] = "it is not there".into();
            }
        },
    ),
    request(
        "layers are not combined",
        "settings/layers-combined",
        |word, body| {
            if body["Request"]["RequestType"] == "Add" {
                swallowed(word, word::MODIFY_SETTINGS)
            } else {
                Bent::Request
            }
        },
    ),
    request("layers stay", "settings/layers-combined", |word, body| {
        if body["Request"]["RequestType"] == "Remove" {
            swallowed(word, word::MODIFY_SETTINGS)
        } else {
            Bent::Request
        }
    }),
    answer(
        "a share without a server is mounted",
        "settings/share-nobody-serves",
        |word, body| {
            succeeded(word, word::MODIFY_SETTINGS, body);
        },
    ),
    request(
        "a share is not dialled",
        "settings/share-whose-server-goes",
        |word, _| swallowed(word, word::MODIFY_SETTINGS),
    ),
    answer(
        "an adapter that is not there is there",
        "settings/adapter-that-is-not-there",
        |word, body| {
            succeeded(word, word::MODIFY_SETTINGS, body);
        },
    ),
    answer(
        "a PCI device that is not there is there",
        "settings/pci-device-that-is-not-there",
        |word, body| {
            succeeded(word, word::MODIFY_SETTINGS, body);
        },
    ),
    answer(
        "nobody's limits are changed",
        "settings/constraints-of-no-container",
        |word, body| {
            succeeded(word, word::MODIFY_SETTINGS, body);
        },
    ),
    answer(
        "unknown resources are added",
        "settings/unknown-resource",
        |word, body| {
            succeeded(word, word::MODIFY_SETTINGS, body);
        },
    ),
    answer(
        "unknown requests are performed",
        "settings/unknown-request-type",
        |word, body| {
            succeeded(word, word::MODIFY_SETTINGS, body);
        },
    ),
    answer(
        "a slow change ends at once, well",
        "ordering/a-slow-change-holds-up-nobody",
        |word, body| {
            succeeded(word, word::MODIFY_SETTINGS, body);
        },
    ),
    request(
        "relay settings must be there",
        "execute/without-relay-settings",
        |word, body| {
            if word == word::EXECUTE_PROCESS && body["Settings"]["VsockStdioRelaySettings"].is_null() {
                return Bent::Answer(json!({"Result": -1, "ErrorMessage": "VsockStdioRelaySettings"}));
            }
            Bent::Request
        },
    ),
    request(
        "a terminal's input has no end",
        "terminal/half-close-is-the-end",
        |word, body| {
            parameters(word, body, |all| {
                all["CommandArgs"][2] = "stty raw -echo; echo ready; cat; echo the end".into()
            })
        },
    ),
    request(
        "one process's output is lost",
        "container/quick-processes-lose-nothing",
        |word, body| {
            parameters(word, body, |all| {
                if all["OciProcess"]["args"][2] == "echo 3 3" {
                    all["OciProcess"]["args"][2] = "exit 0".into();
                }
            })
        },
    ),
];
