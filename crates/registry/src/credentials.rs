//! Who to be for a registry: said by the caller, or left by `docker login`.
//! Source: docker's config.json (`auths`, `credHelpers`, `credsStore`) and its credential helpers' protocol.

use std::{
    collections::HashMap,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::RegistryError;

/// A user and a password, or a token in its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who.
    pub user: String,
    /// What proves it.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: HashMap<String, Auth>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Credentials {
    /// `USER:PASSWORD`.
    pub fn of_text(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':')?;
        (!user.is_empty()).then(|| Self {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// What `docker login` left for a registry, in `$DOCKER_CONFIG` or `~/.docker`.
    ///
    /// # Errors
    /// A configuration that cannot be read, or a helper that fails.
    pub fn of_docker(host: &str) -> Result<Option<Self>, RegistryError> {
        let dir = match (env::var_os("DOCKER_CONFIG"), env::var_os("HOME")) {
            (Some(dir), _) if !dir.is_empty() => PathBuf::from(dir),
            (_, Some(home)) => PathBuf::from(home).join(".docker"),
            _ => return Ok(None),
        };
        Self::in_config(&dir.join("config.json"), host)
    }

    fn in_config(path: &Path, host: &str) -> Result<Option<Self>, RegistryError> {
        let bad = |reason: String| RegistryError::File {
            path: path.to_owned(),
            reason,
        };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(bad(error.to_string())),
        };
        // A list would pass for a structure without fields.
        let config = serde_json::from_slice::<Map<String, Value>>(&text)
            .and_then(|config| DockerConfig::deserialize(Value::Object(config)))
            .map_err(|error| bad(error.to_string()))?;
        if let Some(helper) = config.cred_helpers.get(host) {
            return Self::helped(helper, host);
        }
        let found = config.auths.iter().find(|(key, _)| host_of(key) == host);
        if let Some((_, Auth { auth: Some(auth) })) = found
            && !auth.is_empty()
        {
            let text = STANDARD
                .decode(auth)
                .ok()
                .and_then(|text| String::from_utf8(text).ok());
            let credentials = text.as_deref().and_then(Self::of_text);
            return credentials.map(Some).ok_or_else(|| {
                bad(format!(
                    "what it has for {host} is no user and password in base64"
                ))
            });
        }
        match (&config.creds_store, found) {
            (Some(helper), Some(_)) => Self::helped(helper, host),
            _ => Ok(None),
        }
    }

    /// Asks `docker-credential-HELPER get`.
    fn helped(helper: &str, host: &str) -> Result<Option<Self>, RegistryError> {
        let program = format!("docker-credential-{helper}");
        let failed = |reason: String| RegistryError::File {
            path: program.clone().into(),
            reason,
        };
        let mut child = Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read has its reasons, which its status tells.
            let _ = stdin.write_all(host.as_bytes());
        }
        let output = child
            .wait_with_output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if said.contains("credentials not found") {
                return Ok(None);
            }
            return Err(failed(said));
        }
        let helped: Helped =
            serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
        Ok(Some(Self {
            user: helped.username,
            password: helped.secret,
        }))
    }
}

/// The registry of a key: some are URLs.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn what_docker_login_left_is_found_by_the_registrys_name() {
        let file = config(
            r#"{"auths": {"https://registry.example/v1/": {"auth": "bWU6c2U6Y3JldA=="}, "other:5000": {}}, "credsStore": "none-such"}"#,
        );
        let found = Credentials::in_config(file.path(), "registry.example")
            .unwrap()
            .unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str()), ("me", "se:cret"));
        assert!(!format!("{found:?}").contains("cret"));
        assert!(
            Credentials::in_config(file.path(), "unknown.example")
                .unwrap()
                .is_none()
        );
        let helper = Credentials::in_config(file.path(), "other:5000").unwrap_err();
        assert!(
            helper.to_string().contains("docker-credential-none-such"),
            "{helper}"
        );
    }

    #[test]
    fn a_configuration_that_is_none_is_said_to_be_none() {
        for text in ["", "[]", r#"{"auths": {"a.b": {"auth": "!"}}}"#] {
            assert!(
                Credentials::in_config(config(text).path(), "a.b").is_err(),
                "{text}"
            );
        }
        assert!(
            Credentials::in_config(Path::new("/no/such/file"), "a.b")
                .unwrap()
                .is_none()
        );
    }
}
