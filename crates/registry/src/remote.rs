//! An image in a registry.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cofferdam_archive::Digest;
use cofferdam_store::{DocumentKind, Documents, Platform, Reference, StoreError};
use futures_util::StreamExt;
use oci_client::{
    Client, Reference as RemoteReference,
    client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    secrets::RegistryAuth,
};
use tokio::runtime::Runtime;

use crate::{
    Credentials, RegistryError,
    error::chain,
    layers::{Connection, FIRST_PAUSE, Layers, is_busy},
};

/// Documents that are manifests or indexes, OCI's and docker's.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// How long a registry may be silent in the middle of an answer.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Documents are asked for so often: whoever waits for them sees nothing happen.
const DOCUMENT_TRIES: u32 = 3;

/// How to talk to the registry.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Who to be; what `docker login` left when absent.
    pub credentials: Option<Credentials>,
    /// Certificate authorities to trust besides the system's, in PEM.
    pub authorities: Vec<PathBuf>,
    /// No TLS.
    pub plain_http: bool,
}

/// An image's documents, and its layers as they are asked for.
#[derive(Debug)]
pub struct Remote {
    /// The documents.
    pub documents: Documents,
    /// The layers.
    pub layers: Layers,
}

impl Remote {
    /// Fetches an image's documents.
    ///
    /// # Errors
    /// The registry cannot be reached, refuses, has no such image, or sends what is none.
    pub fn open(image: &Reference, platform: &Platform, options: &Options) -> Result<Self, RegistryError> {
        let host = image
            .host()
            .ok_or_else(|| RegistryError::NoHost(image.to_string()))?;
        // Another provider that the process may have set is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("registry")
            .enable_all()
            .build()?;
        let auth = match &options.credentials {
            Some(credentials) => Some(credentials.clone()),
            None => Credentials::of_docker(host)?,
        };
        let auth = auth.map_or(RegistryAuth::Anonymous, |auth| {
            RegistryAuth::Basic(auth.user, auth.password)
        });
        let certificates = certificates(host, &options.authorities)?;
        let protocols = match (options.plain_http, is_loopback(host)) {
            (true, _) => vec![ClientProtocol::Http],
            // As docker does: a registry on this host need not speak TLS.
            (false, true) => vec![ClientProtocol::Https, ClientProtocol::Http],
            (false, false) => vec![ClientProtocol::Https],
        };
        let mut failure = None;
        for protocol in protocols {
            let config = ClientConfig {
                protocol,
                extra_root_certificates: certificates.clone(),
                connect_timeout: Some(CONNECT_LIMIT),
                read_timeout: Some(SILENCE_LIMIT),
                user_agent: concat!("cofferdam/", env!("CARGO_PKG_VERSION")),
                ..ClientConfig::default()
            };
            // `Client::new` falls back to its defaults, without the certificates, where they are no good.
            let client = Client::try_from(config)
                .map_err(|error| RegistryError::of(&image.to_string(), host, &error))?;
            let registry = Registry {
                runtime: &runtime,
                client: &client,
                auth: &auth,
                image,
                host,
            };
            let reference = registry.reference(image.digest());
            match registry.manifest(&reference) {
                // No connection: the next protocol may do. Not where there is a server with TLS that is not trusted.
                Err(OciDistributionError::RequestError(error))
                    if (error.is_connect() || error.is_request()) && !is_distrust(&error) =>
                {
                    // The first is what was expected to work.
                    failure.get_or_insert(RegistryError::Failed {
                        what: image.to_string(),
                        reason: chain(&error),
                    });
                }
                Err(error) => return Err(RegistryError::of(&image.to_string(), host, &error)),
                Ok(first) => {
                    return registry.remote(first, platform).map(|documents| Self {
                        documents,
                        layers: Layers::new(runtime, Arc::new(Connection { client, reference })),
                    });
                }
            }
        }
        Err(failure.unwrap_or_else(|| RegistryError::NotFound(image.to_string())))
    }
}

struct Registry<'a> {
    runtime: &'a Runtime,
    client: &'a Client,
    auth: &'a RegistryAuth,
    image: &'a Reference,
    host: &'a str,
}

impl Registry<'_> {
    fn reference(&self, digest: Option<Digest>) -> RemoteReference {
        let (host, path) = (self.host.to_owned(), self.image.path().to_owned());
        match (digest, self.image.tag()) {
            (Some(digest), _) => RemoteReference::with_digest(host, path, digest.to_string()),
            (None, tag) => RemoteReference::with_tag(host, path, tag.unwrap_or("latest").to_owned()),
        }
    }

    fn manifest(&self, reference: &RemoteReference) -> Result<Vec<u8>, OciDistributionError> {
        self.again_if_busy(|| {
            let fetched = self.client.pull_manifest_raw(reference, self.auth, &MANIFESTS);
            self.runtime.block_on(fetched).map(|(bytes, _)| bytes.to_vec())
        })
    }

    /// Asks for a document anew where the registry says that it could not answer just now.
    fn again_if_busy<T>(
        &self,
        ask: impl Fn() -> Result<T, OciDistributionError>,
    ) -> Result<T, OciDistributionError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..DOCUMENT_TRIES {
            match ask() {
                Err(error) if is_busy(&error) => {
                    let error = chain(&error);
                    tracing::warn!(
                        error,
                        "fetching a document of {} goes on after {pause:?}",
                        self.image
                    );
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                other => return other,
            }
        }
        ask()
    }

    fn remote(&self, first: Vec<u8>, platform: &Platform) -> Result<Documents, RegistryError> {
        if let Some(expected) = self.image.digest() {
            let what = format!("the manifest of {}", self.image);
            StoreError::check_digest(&what, expected, Digest::of(&first))?;
        }
        let name = self.image.to_string();
        let fetch = &mut |digest: &Digest, size, kind| {
            let fetched = match kind {
                DocumentKind::Manifest => self.manifest(&self.reference(Some(*digest))),
                DocumentKind::Config => self.again_if_busy(|| self.blob(digest, size)),
            };
            fetched.map_err(|error| {
                let error = RegistryError::of(&name, self.host, &error);
                StoreError::Fetch {
                    what: format!("{kind} {digest}"),
                    source: Box::new(error),
                }
            })
        };
        Ok(Documents::gather(&name, first, platform, fetch)?)
    }

    /// A small blob, no longer than its descriptor says.
    fn blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, OciDistributionError> {
        let reference = self.reference(None);
        let digest = digest.to_string();
        self.runtime.block_on(async {
            let response = self
                .client
                .pull_blob_stream_partial(&reference, digest.as_str(), 0, None)
                .await?;
            let (BlobResponse::Full(mut stream) | BlobResponse::Partial(mut stream)) = response;
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                if bytes.len() as u64 + piece.len() as u64 > size {
                    return Err(OciDistributionError::SpecViolationError(format!(
                        "{digest} is longer than the {size} bytes that its manifest says"
                    )));
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        })
    }
}

/// The authorities that the caller names, and the one that docker would trust for this registry.
fn certificates(host: &str, authorities: &[PathBuf]) -> Result<Vec<Certificate>, RegistryError> {
    let docker = Path::new("/etc/docker/certs.d").join(host).join("ca.crt");
    let docker = docker.exists().then_some(docker);
    authorities
        .iter()
        .chain(&docker)
        .map(|path| {
            let data = fs::read(path).map_err(|error| RegistryError::File {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            if !data
                .windows(27)
                .any(|line| line == b"-----BEGIN CERTIFICATE-----")
            {
                return Err(RegistryError::File {
                    path: path.clone(),
                    reason: "it holds no certificate in PEM".to_owned(),
                });
            }
            Ok(Certificate {
                encoding: CertificateEncoding::Pem,
                data,
            })
        })
        .collect()
}

/// Whether a certificate is the cause.
fn is_distrust(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // What is in an I/O error is not among its sources.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_may_go_without_tls() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.3.2.1",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "registry.example",
            "localhost.example:5000",
            "128.0.0.1",
            "10.0.0.1:5000",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
