//! Measures the server with one client over a socket pair: MiB/s of 1 MiB reads and writes, and small requests a
//! second. Run it with `cargo run --release -p cofferdam-p9 --example measure [DIRECTORY]`.

use std::{error::Error, io::Write, os::unix::net::UnixStream, sync::Arc, time::Instant};

use cofferdam_p9::{
    Export, Exports, Server, ServerOptions,
    wire::{GetattrMask, NO_FID, Names, OpenFlags, Reply, Request, Text},
};

const FILE_BYTES: u64 = 256 << 20;
const SMALL: u32 = 20_000;

struct Client {
    stream: UnixStream,
    frame: Vec<u8>,
    reply: Vec<u8>,
}

impl Client {
    fn send(&mut self, tag: u16, request: &Request<'_>) -> Result<(), Box<dyn Error>> {
        request.encode(tag, &mut self.frame)?;
        Ok(self.stream.write_all(&self.frame)?)
    }

    /// Reads a reply, which must not be an error.
    fn receive(&mut self) -> Result<(u16, Reply<'_>), Box<dyn Error>> {
        use std::io::Read;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let len = u32::from_le_bytes(size) as usize;
        if self.reply.len() < len {
            self.reply.resize(len, 0);
        }
        self.reply[..4].copy_from_slice(&size);
        self.stream.read_exact(&mut self.reply[4..len])?;
        match Reply::parse(&self.reply[..len])? {
            (_, Reply::Lerror { ecode }) => Err(std::io::Error::from_raw_os_error(ecode as i32).into()),
            other => Ok(other),
        }
    }

    fn rpc(&mut self, request: &Request<'_>) -> Result<(), Box<dyn Error>> {
        self.send(0, request)?;
        self.receive().map(drop)
    }

    /// Sends `count` requests with at most `window` under way.
    fn stream_of<'a>(
        &mut self,
        count: u64,
        window: u64,
        mut request: impl FnMut(u64) -> Request<'a>,
    ) -> Result<f64, Box<dyn Error>> {
        let start = Instant::now();
        let mut free: Vec<u16> = (0..window as u16).collect();
        let (mut sent, mut done) = (0, 0);
        while done < count {
            while sent < count
                && let Some(tag) = free.pop()
            {
                self.send(tag, &request(sent))?;
                sent += 1;
            }
            free.push(self.receive()?.0);
            done += 1;
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let exports = Arc::new(Exports::new());
    exports.add(
        "m".into(),
        Export {
            path: dir.path().into(),
            read_only: false,
            allowed_names: None,
        },
    )?;
    let server = Server::new(exports, ServerOptions::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (ours, theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    {
        let _guard = runtime.enter();
        let stream = tokio::net::UnixStream::from_std(theirs)?;
        runtime.spawn(async move { server.serve(stream).await });
    }

    let mut client = Client {
        stream: ours,
        frame: Vec::new(),
        reply: Vec::new(),
    };
    client.rpc(&Request::Version {
        msize: 1 << 20,
        version: "9P2000.L".into(),
    })?;
    client.rpc(&Request::Attach {
        fid: 0,
        afid: NO_FID,
        uname: "".into(),
        aname: "m".into(),
        n_uname: 0,
    })?;
    client.rpc(&Request::Walk {
        fid: 0,
        newfid: 1,
        names: Names::default(),
    })?;
    let flags = OpenFlags::READ_WRITE;
    client.rpc(&Request::Lcreate {
        fid: 1,
        name: "large".into(),
        flags,
        mode: 0o600,
        gid: 0,
    })?;

    let piece = (1_u32 << 20) - 24;
    let data = vec![7; piece as usize];
    let pieces = FILE_BYTES / u64::from(piece);
    let mib = (pieces * u64::from(piece)) as f64 / f64::from(1 << 20);
    for window in [1, 8] {
        let write = |index| Request::Write {
            fid: 1,
            offset: index * u64::from(piece),
            data: &data,
        };
        client.stream_of(pieces, window, write)?;
        let took = client.stream_of(pieces, window, write)?;
        println!("write, {window} under way: {:.0} MiB/s", mib / took);
        let read = |index| Request::Read {
            fid: 1,
            offset: index * u64::from(piece),
            count: piece,
        };
        let took = client.stream_of(pieces, window, read)?;
        println!("read, {window} under way: {:.0} MiB/s", mib / took);
    }
    for window in [1, 32] {
        let getattr = |_| Request::Getattr {
            fid: 1,
            mask: GetattrMask::ALL,
        };
        let took = client.stream_of(u64::from(SMALL), window, getattr)?;
        println!("getattr, {window} under way: {:.0}/s", f64::from(SMALL) / took);
    }

    // What the guest's stat of a file it does not know costs: walk, getattr, clunk.
    for index in 0..1000 {
        std::fs::write(dir.path().join(format!("small-{index}")), "small")?;
    }
    let start = Instant::now();
    for index in 0..SMALL {
        let name = format!("small-{}", index % 1000);
        let mut names = Names::default();
        names.push(Text(name.as_bytes()));
        client.rpc(&Request::Walk {
            fid: 0,
            newfid: 2,
            names,
        })?;
        client.rpc(&Request::Getattr {
            fid: 2,
            mask: GetattrMask::ALL,
        })?;
        client.rpc(&Request::Clunk { fid: 2 })?;
    }
    println!(
        "stat of a file (walk, getattr, clunk): {:.0}/s",
        f64::from(SMALL) / start.elapsed().as_secs_f64()
    );
    Ok(())
}
