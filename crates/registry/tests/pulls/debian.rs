//! Debian's package `docker-registry`, run on this host's loopback.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::image::{MANIFEST, TestImage};

/// The program, where whoever runs the tests says it is.
const PROGRAM: &str = "COFFERDAM_TEST_REGISTRY";

/// A registry; it and what it holds end with the value.
pub(crate) struct Registry {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) dir: PathBuf,
}

impl Registry {
    /// One without TLS for everybody, with its files in this directory.
    pub(crate) fn plain(dir: &Path) -> Self {
        Self::start(dir, json!({}), json!({}))
    }

    /// One whose users are those of an htpasswd file.
    pub(crate) fn with_users(dir: &Path, htpasswd: &str) -> Self {
        let path = dir.join("htpasswd");
        fs::write(&path, htpasswd).unwrap();
        let auth = json!({ "htpasswd": { "realm": "tests", "path": path } });
        Self::start(dir, json!({}), auth)
    }

    /// One with TLS.
    pub(crate) fn with_tls(dir: &Path, certificate: &str, key: &str) -> Self {
        let paths = (dir.join("certificate.pem"), dir.join("key.pem"));
        fs::write(&paths.0, certificate).unwrap();
        fs::write(&paths.1, key).unwrap();
        Self::start(dir, json!({ "certificate": paths.0, "key": paths.1 }), json!({}))
    }

    fn start(dir: &Path, tls: Value, auth: Value) -> Self {
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "info" },
            "storage": { "filesystem": { "rootdirectory": dir.join("data") } },
            "http": { "addr": "127.0.0.1:0", "secret": "of this test" },
        });
        if tls != json!({}) {
            config["http"]["tls"] = tls;
        }
        if auth != json!({}) {
            config["auth"] = auth;
        }
        let path = dir.join("config.yml");
        // What is JSON is YAML too.
        fs::write(&path, config.to_string()).unwrap();
        let mut child = Command::new(program())
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.by_ref().find_map(|line| {
            let address = line
                .split_once("listening on ")
                .and_then(|(_, rest)| rest.split(['"', ',']).next()?.parse().ok());
            said.push(line);
            address
        });
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("docker-registry did not start: {said:#?}");
        };
        // It stops when nobody takes what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            address,
            dir: dir.to_owned(),
        }
    }

    /// Puts the image and an index of it there, as `tests/image:1` and `tests/image:many`.
    pub(crate) fn push(&self, image: &TestImage) {
        for (digest, blob) in &image.blobs {
            let upload = self.ask("POST", "/v2/tests/image/blobs/uploads/", "", b"");
            let location = upload
                .lines()
                .find_map(|line| line.strip_prefix("Location: "))
                .unwrap_or_else(|| panic!("no place to upload to: {upload}"));
            let path = location
                .strip_prefix(&format!("http://{}", self.address))
                .unwrap_or(location);
            let separator = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{separator}digest={digest}");
            let answer = self.ask("PUT", &path, "application/octet-stream", blob);
            assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        }
        for (tag, media_type, manifest) in [
            ("1", MANIFEST, image.manifest.clone()),
            ("many", crate::image::INDEX, image.index()),
        ] {
            let path = format!("/v2/tests/image/manifests/{tag}");
            let answer = self.ask("PUT", &path, media_type, &manifest);
            assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        }
    }

    /// One request on a connection of its own; the whole answer.
    fn ask(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// An image's name there.
    pub(crate) fn name(&self, suffix: &str) -> String {
        format!("{}/tests/image{suffix}", self.address)
    }

    /// Ends it; its directory stays for another.
    pub(crate) fn stop(self) {}
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    if let Some(program) = env::var_os(PROGRAM) {
        return program.into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join("docker-registry"))
        .find(|program| program.exists())
        .unwrap_or_else(|| {
            panic!(
                "there is no docker-registry: `cargo xtask test process` fetches Debian's and says where it is in \
                 {PROGRAM}; by hand, set it to where the package docker-registry is unpacked or installed"
            )
        })
}
