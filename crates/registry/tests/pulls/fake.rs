//! A registry in this process, as good or bad as its answers.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cofferdam_registry::Options;

use crate::image::{MANIFEST, TestImage};

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// By names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    /// The first byte that is wanted.
    pub(crate) fn start(&self) -> Option<usize> {
        let range = self.headers.get("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }

    /// Whether it is for a blob or manifest of that digest.
    pub(crate) fn is_for(&self, digest: &str) -> bool {
        self.path.ends_with(digest)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// How many bytes of the body are sent before the connection breaks.
    pub(crate) cut: Option<usize>,
    /// Whether the length is said; the connection's end tells it otherwise.
    pub(crate) length: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
            length: true,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    /// A blob as a good registry sends it: from the byte that is wanted on.
    pub(crate) fn blob(request: &Request, blob: &[u8]) -> Self {
        match request.start() {
            Some(start) if start < blob.len() => {
                let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
                Self::new(206, &blob[start..]).header("Content-Range", &range)
            }
            Some(_) => Self::new(416, ""),
            None => Self::new(200, blob),
        }
    }
}

impl TestImage {
    /// What a good registry answers.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        let (_, last) = request.path.rsplit_once('/').unwrap();
        if request.path == "/v2/" {
            return Reply::new(200, "{}");
        }
        if request.path.contains("/manifests/") && (last == "1" || last == self.digest()) {
            return Reply::new(200, self.manifest.clone()).header("Content-Type", MANIFEST);
        }
        match self.blobs.get(last) {
            Some(blob) => Reply::blob(request, blob),
            None => Reply::new(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#,
            ),
        }
    }
}

/// A server; it ends with the process.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Bytes of all bodies.
    served: Arc<AtomicU64>,
}

impl Fake {
    pub(crate) fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            served: Arc::default(),
        };
        let (answer, requests, served) = (
            Arc::new(answer),
            Arc::clone(&fake.requests),
            Arc::clone(&fake.served),
        );
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, requests, served) =
                    (Arc::clone(&answer), Arc::clone(&requests), Arc::clone(&served));
                thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    requests.lock().unwrap().push(request.clone());
                    let reply = answer(&request);
                    send(stream, &reply, &served);
                });
            }
        });
        fake
    }

    /// The image that is asked for, by a tag or `@digest`.
    pub(crate) fn name(&self, suffix: &str) -> String {
        format!("{}/some/image{suffix}", self.address)
    }

    /// The requests for a blob or manifest.
    pub(crate) fn requests_for(&self, digest: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request.is_for(digest))
            .cloned()
            .collect()
    }

    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

/// How a registry without TLS is spoken to.
pub(crate) fn plain() -> Options {
    Options {
        plain_http: true,
        ..Options::default()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        })
        .collect();
    Some(Request { path, headers })
}

/// One answer a connection: who asks again connects again.
fn send(mut stream: TcpStream, reply: &Reply, served: &AtomicU64) {
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
    if reply.length {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    // Who asked may have gone.
    let _ = stream.set_write_timeout(Some(Duration::from_secs(20)));
    let _ = stream.write_all(head.as_bytes());
    for piece in body.chunks(16 << 10) {
        if stream.write_all(piece).is_err() {
            return;
        }
        served.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
}
