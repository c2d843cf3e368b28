//! Serves one directory on a Unix socket as the export `share`, for trying the server by hand:
//!
//! ```sh
//! cargo run -p cofferdam-p9 --example serve -- DIRECTORY /tmp/9p.sock [ro] [NAME…]
//! mount -t 9p -o trans=unix,version=9p2000.L,aname=share,msize=1048576 /tmp/9p.sock /mnt
//! ```

use std::{error::Error, sync::Arc};

use cofferdam_p9::{Export, Exports, Server, ServerOptions, raise_file_limit};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(path), Some(socket)) = (args.next(), args.next()) else {
        return Err("usage: serve DIRECTORY SOCKET [ro] [NAME…]".into());
    };
    let mut names: Vec<_> = args.collect();
    let read_only = names.first().is_some_and(|first| first == "ro");
    if read_only {
        names.remove(0);
    }
    raise_file_limit()?;
    let exports = Arc::new(Exports::new());
    let allowed_names = (!names.is_empty()).then_some(names);
    exports.add(
        "share".into(),
        Export {
            path: path.into(),
            read_only,
            allowed_names,
        },
    )?;
    let server = Server::new(exports, ServerOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let server = server.clone();
            tokio::spawn(async move { println!("a connection ended: {:?}", server.serve(stream).await) });
        }
    })
}
