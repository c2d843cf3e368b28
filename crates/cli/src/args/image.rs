//! Images: from registries and archives into the store, and out of it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Format, LayerFormat, values::size_bytes};

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Where images are kept: /var/lib/cofferdam for root, else a directory of this user's.
    #[arg(long, global = true, value_name = "DIR", env = "COFFERDAM_STORE")]
    pub(crate) store: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Fetch an image from a registry; its layers become disks on the way.
    ///
    /// Layers that are here already are not fetched again. Credentials are those of `docker login`, or --creds.
    /// Registries on this host's loopback may speak plain HTTP.
    #[command(
        after_help = "Examples:\n  cofferdam image pull registry.example/team/app:1.2\n  \
                            cofferdam image pull --tls-ca ca.pem --creds me:secret localhost:5000/app"
    )]
    Pull(PullArgs),
    /// Take an image from an OCI layout (a directory or an archive) or from what `docker save` writes.
    #[command(
        after_help = "Examples:\n  docker save app:1.2 | gzip > app.tar.gz; cofferdam image import app.tar.gz\n  \
                            cofferdam image import ./layout app:1.2"
    )]
    Import(ImportArgs),
    /// The images there are.
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  cofferdam image list --format json | jq '.[].name'"
    )]
    List {
        /// What to print. JSON: name, id, manifestDigest, layers, bytes, since (seconds since 1970).
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Take images away. What no other image needs, and nobody uses, goes with them.
    #[command(
        visible_alias = "rm",
        after_help = "Example:\n  cofferdam image remove app:1.2"
    )]
    Remove {
        /// Names, IDs, or unique beginnings of IDs.
        #[arg(value_name = "IMAGE", required = true)]
        images: Vec<String>,
    },
    /// All that is known of an image, as JSON: names, id, manifestDigest, layers, config.
    #[command(after_help = "Example:\n  cofferdam image inspect app:1.2 | jq .config.config.Env")]
    Inspect {
        /// A name, an ID, or the unique beginning of one.
        #[arg(value_name = "IMAGE")]
        image: String,
    },
    /// Throw away what no image needs and nobody uses.
    #[command(after_help = "Example:\n  cofferdam image prune")]
    Prune,
}

#[derive(Debug, Args)]
pub(crate) struct VariantArgs {
    /// The layers' file system.
    #[arg(long, value_enum, default_value_t = LayerFormat::Ext4)]
    pub(crate) format: LayerFormat,

    /// Give the layers dm-verity trees: the VM then checks every block that it reads.
    #[arg(long)]
    pub(crate) verity: bool,

    /// The largest layer that is taken, decompressed: what stops a bomb. In bytes or with K, M, G or T.
    #[arg(long, value_name = "SIZE", default_value = "128G", value_parser = size_bytes)]
    pub(crate) max_layer: u64,

    /// The platform, where the image is for several: this host's when absent.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<cofferdam_store::Platform>,

    /// Print only the image's ID, and errors.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    /// Who to be for the registry, in the place of what `docker login` left: USER:PASSWORD.
    #[arg(
        long,
        value_name = "USER:PASSWORD",
        env = "COFFERDAM_CREDS",
        hide_env_values = true
    )]
    pub(crate) creds: Option<String>,

    /// A certificate authority to trust besides the system's, in PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Speak HTTP without TLS.
    #[arg(long)]
    pub(crate) plain_http: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The image: `REGISTRY/REPOSITORY[:TAG][@DIGEST]`.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,

    #[command(flatten)]
    pub(crate) variant: VariantArgs,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The layout's directory, or an archive, compressed or not.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,

    /// The name it gets; what it is called there when absent.
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Which of several images, by its name there.
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,

    #[command(flatten)]
    pub(crate) variant: VariantArgs,
}
