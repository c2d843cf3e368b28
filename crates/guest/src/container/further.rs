//! The document of a further process, completed with its container's: what it does not say is as for the container's
//! first process, and whom a name is, is looked up in the root that the container sees.

use std::path::{Path, PathBuf};

use cofferdam_rootfs::{Root, settle_user};
use serde_json::{Map, Value, json};

use super::{Container, Phase, spec, state_error};
use crate::error::{AgentError, Result};

/// Member of a process's document: variables for the container's environment, `NAME=value` set, `NAME` taken away. An
/// extension of this project; with it, and without `env`, the environment is the container's.
const FURTHER_ENV: &str = "cofferdamEnv";
/// Members that are the first process's where a further one does not say.
const INHERITED: [&str; 4] = ["capabilities", "cwd", "env", "user"];

impl Container {
    /// The document ready for the runtime.
    pub(super) fn exec_document(&self, document: &Value) -> Result<Value> {
        let Value::Object(mut process) = document.clone() else {
            return Err(AgentError::Invalid("OciProcess is not an object".into()));
        };
        let root = {
            let state = self.lock();
            match state.phase {
                Phase::Started => {}
                _ => return Err(state_error(&self.id, "is not running")),
            }
            let Some(init) = state.init.as_ref().filter(|init| !init.has_exited()) else {
                return Err(AgentError::AlreadyStopped(self.id.clone()));
            };
            inherit(&mut process, &state.process, state.own_home);
            PathBuf::from(format!("/proc/{}/root", init.pid()))
        };
        settle(&mut process, &root)?;
        let mut removed = Vec::new();
        spec::complete_process(&mut process, &mut removed);
        for line in removed {
            tracing::warn!(container = self.id, "not used from a process's document: {line}");
        }
        Ok(Value::Object(process))
    }
}

/// Takes over what `process` does not say. `own_home`: whether the first one's HOME was in its own document, and so is
/// everybody's; otherwise it is its user's.
fn inherit(process: &mut Map<String, Value>, first: &Value, own_home: bool) {
    let other_user = process.get("user").is_some_and(Value::is_object);
    let without_env = process.get("env").is_none_or(Value::is_null);
    for member in INHERITED {
        if process.get(member).is_none_or(Value::is_null)
            && let Some(value) = first.get(member)
        {
            process.insert(member.to_owned(), value.clone());
        }
    }
    let further = process.remove(FURTHER_ENV);
    let Some(Value::Array(environment)) = process.get_mut("env") else {
        return;
    };
    if without_env && other_user && !own_home {
        environment.retain(|entry| name_of(entry) != Some("HOME"));
    }
    for entry in further.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let name = name_of(entry);
        environment.retain(|there| name_of(there) != name);
        if entry.as_str().is_some_and(|entry| entry.contains('=')) {
            environment.push(entry.clone());
        }
    }
}

fn name_of(entry: &Value) -> Option<&str> {
    let entry = entry.as_str()?;
    Some(entry.split_once('=').map_or(entry, |(name, _)| name))
}

/// Numbers for the user's name, if it has one, and a directory to start in: the runtime's word for a missing one is that
/// a system call failed.
fn settle(process: &mut Map<String, Value>, root: &Path) -> Result<()> {
    let root = Root::open(root)?;
    if let Some(cwd) = process.get("cwd").and_then(Value::as_str)
        && matches!(root.has_directory(cwd), Ok(false))
    {
        return Err(AgentError::Invalid(format!(
            "the working directory {cwd} is not a directory of the container"
        )));
    }
    let named = process
        .get("user")
        .and_then(|user| user.get("username"))
        .and_then(Value::as_str)
        .is_some_and(|name| !name.is_empty());
    if named {
        process.entry("env").or_insert_with(|| json!([]));
        settle_user(&root, process)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> Value {
        json!({
            "args": ["first"],
            "cwd": "/srv",
            "env": ["A=1", "HOME=/root", "B=2"],
            "user": { "uid": 5, "gid": 6 },
            "capabilities": { "bounding": ["CAP_KILL"] },
        })
    }

    fn inherited(process: Value, own_home: bool) -> Value {
        let mut process = process.as_object().unwrap().clone();
        inherit(&mut process, &first(), own_home);
        process.into()
    }

    #[test]
    fn what_is_not_said_is_the_first_processs_own() {
        let process = inherited(json!({ "args": ["second"] }), false);
        let mut expected = first();
        expected["args"] = json!(["second"]);
        assert_eq!(process, expected);
        let whole =
            json!({ "args": ["x"], "cwd": "/", "env": ["C=3"], "user": { "uid": 0 }, "capabilities": {} });
        assert_eq!(inherited(whole.clone(), false), whole);
    }

    #[test]
    fn variables_are_added_replaced_and_taken_away() {
        let process = inherited(json!({ "cofferdamEnv": ["A=9", "B", "N=x=y"] }), false);
        assert_eq!(process["env"], json!(["HOME=/root", "A=9", "N=x=y"]));
        assert!(process.get("cofferdamEnv").is_none());
        let process = inherited(json!({ "env": ["C=3"], "cofferdamEnv": ["C=4"] }), false);
        assert_eq!(process["env"], json!(["C=4"]));
    }

    #[test]
    fn another_user_has_another_home_unless_the_container_said_one() {
        let user = json!({ "user": { "username": "web" } });
        assert_eq!(inherited(user.clone(), false)["env"], json!(["A=1", "B=2"]));
        assert_eq!(inherited(user, true)["env"], first()["env"]);
    }

    #[test]
    fn a_name_is_looked_up_in_the_root_and_an_unknown_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "web:x:33:34::/var/www:/bin/sh\n").unwrap();
        std::fs::write(dir.path().join("etc/group"), "adm:x:4:web\n").unwrap();
        let settled = |user: &str| {
            let mut process = Map::new();
            process.insert("user".to_owned(), json!({ "username": user }));
            settle(&mut process, dir.path()).map(|()| Value::Object(process))
        };
        assert_eq!(
            settled("web").unwrap(),
            json!({
                "user": { "uid": 33, "gid": 34, "additionalGids": [34, 4] },
                "env": ["HOME=/var/www"],
            })
        );
        assert_eq!(settled("web:adm").unwrap()["user"]["gid"], 4);
        let refused = settled("nobody").unwrap_err().to_string();
        assert_eq!(
            refused,
            "unable to find user nobody: no matching entries in passwd file"
        );
        let mut lost = Map::from_iter([("cwd".to_owned(), json!("/etc/passwd"))]);
        let refused = settle(&mut lost, dir.path()).unwrap_err().to_string();
        assert!(
            refused.starts_with("the working directory /etc/passwd is not"),
            "{refused}"
        );
    }
}
