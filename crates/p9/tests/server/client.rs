//! A small, blocking 9P client: one method a message, errors as the numbers the server sent.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use cofferdam_p9::wire::{
    Attributes, FsStats, GetattrMask, NO_FID, Names, OpenFlags, Qid, Reader, Reply, Request, SetattrMask,
    Text,
};

/// A Linux error number.
pub(crate) type Errno = i32;

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    pub(crate) msize: u32,
    next_fid: u32,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) qid: Qid,
    pub(crate) offset: u64,
    pub(crate) kind: u8,
    pub(crate) name: Vec<u8>,
}

/// A file's new attributes; start from `Change::default()`.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) valid: SetattrMask,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) atime: (u64, u64),
    pub(crate) mtime: (u64, u64),
}

macro_rules! expect_reply {
    ($frame:expr, $pattern:pat => $value:expr) => {{
        let frame = $frame;
        match Reply::parse(&frame).expect("the server sent a frame that is no message") {
            (_, $pattern) => Ok($value),
            (_, Reply::Lerror { ecode }) => Err(ecode as Errno),
            other => panic!("the server answered with {other:?}"),
        }
    }};
}

impl Client {
    /// A client that has agreed on messages of `msize` bytes.
    pub(crate) fn new(stream: UnixStream, msize: u32) -> Self {
        let mut client = Self {
            stream,
            msize,
            next_fid: 100,
        };
        client.msize = client.version(msize, "9P2000.L").0;
        client
    }

    /// A client that has said nothing yet.
    pub(crate) fn silent(stream: UnixStream) -> Self {
        Self {
            stream,
            msize: 0,
            next_fid: 100,
        }
    }

    /// A fid number that was not used before.
    pub(crate) fn fid(&mut self) -> u32 {
        self.next_fid += 1;
        self.next_fid
    }

    pub(crate) fn send(&mut self, tag: u16, request: &Request<'_>) {
        let mut frame = Vec::new();
        request.encode(tag, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut size = [0; 4];
        match self.stream.read_exact(&mut size) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("reading a reply: {error}"),
        }
        let mut frame = vec![0; u32::from_le_bytes(size) as usize];
        frame[..4].copy_from_slice(&size);
        self.stream.read_exact(&mut frame[4..]).unwrap();
        Some(frame)
    }

    pub(crate) fn rpc(&mut self, request: &Request<'_>) -> Vec<u8> {
        self.send(1, request);
        self.receive().expect("the server closed the connection")
    }

    pub(crate) fn version(&mut self, msize: u32, version: &str) -> (u32, Vec<u8>) {
        let result: Result<_, Errno> = expect_reply!(
            self.rpc(&Request::Version { msize, version: version.into() }),
            Reply::Version { msize, version } => (msize, version.0.to_vec())
        );
        result.unwrap()
    }

    pub(crate) fn attach_as(&mut self, name: &str, uid: u32) -> Result<u32, Errno> {
        let fid = self.fid();
        let request = Request::Attach {
            fid,
            afid: NO_FID,
            uname: "".into(),
            aname: name.into(),
            n_uname: uid,
        };
        expect_reply!(self.rpc(&request), Reply::Attach { .. } => fid)
    }

    pub(crate) fn attach(&mut self, name: &str) -> u32 {
        self.attach_as(name, 0).unwrap()
    }

    /// Walks; the new fid and the qids.
    pub(crate) fn walk_qids(&mut self, fid: u32, names: &[&[u8]]) -> Result<(u32, Vec<Qid>), Errno> {
        let newfid = self.fid();
        let mut wire_names = Names::default();
        for name in names {
            assert!(wire_names.push(Text(name)));
        }
        let request = Request::Walk {
            fid,
            newfid,
            names: wire_names,
        };
        expect_reply!(self.rpc(&request), Reply::Walk { qids } => (newfid, qids.as_slice().to_vec()))
    }

    /// Walks all the way.
    pub(crate) fn walk_bytes(&mut self, fid: u32, names: &[&[u8]]) -> Result<u32, Errno> {
        let (newfid, qids) = self.walk_qids(fid, names)?;
        if qids.len() == names.len() {
            Ok(newfid)
        } else {
            Err(libc::ENOENT)
        }
    }

    pub(crate) fn walk(&mut self, fid: u32, names: &[&str]) -> Result<u32, Errno> {
        self.walk_bytes(fid, &names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>())
    }

    pub(crate) fn open(&mut self, fid: u32, flags: OpenFlags) -> Result<Qid, Errno> {
        expect_reply!(self.rpc(&Request::Lopen { fid, flags }), Reply::Lopen { qid, .. } => qid)
    }

    /// Walks and opens.
    pub(crate) fn open_at(&mut self, dir: u32, names: &[&str], flags: OpenFlags) -> Result<u32, Errno> {
        let fid = self.walk(dir, names)?;
        self.open(fid, flags)?;
        Ok(fid)
    }

    /// Creates and opens; the new fid.
    pub(crate) fn create(
        &mut self,
        dir: u32,
        name: &str,
        flags: OpenFlags,
        mode: u32,
        gid: u32,
    ) -> Result<u32, Errno> {
        let fid = self.walk(dir, &[])?;
        let request = Request::Lcreate {
            fid,
            name: name.into(),
            flags,
            mode,
            gid,
        };
        expect_reply!(self.rpc(&request), Reply::Lcreate { .. } => fid)
    }

    pub(crate) fn read(&mut self, fid: u32, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        expect_reply!(self.rpc(&Request::Read { fid, offset, count }), Reply::Read { data } => data.to_vec())
    }

    pub(crate) fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        expect_reply!(self.rpc(&Request::Write { fid, offset, data }), Reply::Write { count } => count)
    }

    pub(crate) fn fsync(&mut self, fid: u32) -> Result<(), Errno> {
        expect_reply!(self.rpc(&Request::Fsync { fid, datasync: 0 }), Reply::Fsync {} => ())
    }

    pub(crate) fn getattr(&mut self, fid: u32) -> Result<Attributes, Errno> {
        let request = Request::Getattr {
            fid,
            mask: GetattrMask::ALL,
        };
        expect_reply!(self.rpc(&request), Reply::Getattr { attributes } => attributes)
    }

    pub(crate) fn setattr(&mut self, fid: u32, change: Change) -> Result<(), Errno> {
        let request = Request::Setattr {
            fid,
            valid: change.valid,
            mode: change.mode,
            uid: change.uid,
            gid: change.gid,
            size: change.size,
            atime_sec: change.atime.0,
            atime_nsec: change.atime.1,
            mtime_sec: change.mtime.0,
            mtime_nsec: change.mtime.1,
        };
        expect_reply!(self.rpc(&request), Reply::Setattr {} => ())
    }

    pub(crate) fn statfs(&mut self, fid: u32) -> Result<FsStats, Errno> {
        expect_reply!(self.rpc(&Request::Statfs { fid }), Reply::Statfs { stats } => stats)
    }

    pub(crate) fn readlink(&mut self, fid: u32) -> Result<Vec<u8>, Errno> {
        expect_reply!(self.rpc(&Request::Readlink { fid }), Reply::Readlink { target } => target.0.to_vec())
    }

    /// One Treaddir.
    pub(crate) fn readdir(&mut self, fid: u32, offset: u64, count: u32) -> Result<Vec<Entry>, Errno> {
        expect_reply!(self.rpc(&Request::Readdir { fid, offset, count }), Reply::Readdir { data } => entries(data))
    }

    /// Everything in an opened directory.
    pub(crate) fn list(&mut self, fid: u32) -> Result<Vec<Entry>, Errno> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let offset = all.last().map_or(0, |entry| entry.offset);
            let more = self.readdir(fid, offset, self.msize - 24)?;
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    /// The sorted names in a directory, opened anew.
    pub(crate) fn names(&mut self, dir: u32) -> Vec<String> {
        let fid = self.open_at(dir, &[], OpenFlags::DIRECTORY).unwrap();
        let entries = self.list(fid).unwrap();
        self.clunk(fid).unwrap();
        let mut names: Vec<_> = entries
            .into_iter()
            .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn mkdir(&mut self, dfid: u32, name: &str, mode: u32, gid: u32) -> Result<Qid, Errno> {
        let request = Request::Mkdir {
            dfid,
            name: name.into(),
            mode,
            gid,
        };
        expect_reply!(self.rpc(&request), Reply::Mkdir { qid } => qid)
    }

    pub(crate) fn symlink(&mut self, dfid: u32, name: &str, target: &str, gid: u32) -> Result<Qid, Errno> {
        let request = Request::Symlink {
            dfid,
            name: name.into(),
            target: target.into(),
            gid,
        };
        expect_reply!(self.rpc(&request), Reply::Symlink { qid } => qid)
    }

    pub(crate) fn mknod(
        &mut self,
        dfid: u32,
        name: &str,
        mode: u32,
        device: (u32, u32),
    ) -> Result<Qid, Errno> {
        let request = Request::Mknod {
            dfid,
            name: name.into(),
            mode,
            major: device.0,
            minor: device.1,
            gid: 0,
        };
        expect_reply!(self.rpc(&request), Reply::Mknod { qid } => qid)
    }

    pub(crate) fn link(&mut self, dfid: u32, fid: u32, name: &str) -> Result<(), Errno> {
        expect_reply!(self.rpc(&Request::Link { dfid, fid, name: name.into() }), Reply::Link {} => ())
    }

    pub(crate) fn rename(&mut self, fid: u32, dfid: u32, name: &str) -> Result<(), Errno> {
        expect_reply!(self.rpc(&Request::Rename { fid, dfid, name: name.into() }), Reply::Rename {} => ())
    }

    pub(crate) fn renameat(&mut self, from: u32, old: &str, to: u32, new: &str) -> Result<(), Errno> {
        let request = Request::Renameat {
            olddirfid: from,
            oldname: old.into(),
            newdirfid: to,
            newname: new.into(),
        };
        expect_reply!(self.rpc(&request), Reply::Renameat {} => ())
    }

    pub(crate) fn unlinkat(&mut self, dirfid: u32, name: &str, flags: u32) -> Result<(), Errno> {
        expect_reply!(self.rpc(&Request::Unlinkat { dirfid, name: name.into(), flags }), Reply::Unlinkat {} => ())
    }

    pub(crate) fn remove(&mut self, fid: u32) -> Result<(), Errno> {
        expect_reply!(self.rpc(&Request::Remove { fid }), Reply::Remove {} => ())
    }

    pub(crate) fn clunk(&mut self, fid: u32) -> Result<(), Errno> {
        expect_reply!(self.rpc(&Request::Clunk { fid }), Reply::Clunk {} => ())
    }

    /// The value of an attribute, or with an empty name the names.
    pub(crate) fn getxattr(&mut self, fid: u32, name: &str) -> Result<Vec<u8>, Errno> {
        let newfid = self.fid();
        let request = Request::Xattrwalk {
            fid,
            newfid,
            name: name.into(),
        };
        let size = expect_reply!(self.rpc(&request), Reply::Xattrwalk { size } => size)?;
        let mut value = Vec::new();
        loop {
            let more = self.read(newfid, value.len() as u64, self.msize - 24)?;
            if more.is_empty() {
                break;
            }
            value.extend(more);
        }
        assert_eq!(value.len() as u64, size);
        self.clunk(newfid)?;
        Ok(value)
    }

    pub(crate) fn setxattr(&mut self, fid: u32, name: &str, value: &[u8], flags: u32) -> Result<(), Errno> {
        let newfid = self.walk(fid, &[])?;
        let request = Request::Xattrcreate {
            fid: newfid,
            name: name.into(),
            size: value.len() as u64,
            flags,
        };
        let created: Result<(), Errno> = expect_reply!(self.rpc(&request), Reply::Xattrcreate {} => ());
        if let Err(errno) = created {
            self.clunk(newfid)?;
            return Err(errno);
        }
        let mut done = 0;
        for piece in value.chunks(self.msize as usize - 24) {
            done += self.write(newfid, done, piece)? as u64;
        }
        self.clunk(newfid)
    }

    /// The status of a Tlock: 0 success, 1 blocked, 2 error. `kind`: 0 shared, 1 exclusive, 2 unlock.
    pub(crate) fn lock(
        &mut self,
        fid: u32,
        kind: u8,
        start: u64,
        length: u64,
        process: u32,
    ) -> Result<u8, Errno> {
        let request = Request::Lock {
            fid,
            kind,
            flags: 1,
            start,
            length,
            proc_id: process,
            client_id: "guest".into(),
        };
        expect_reply!(self.rpc(&request), Reply::Lock { status } => status)
    }

    /// Type, start and length of the lock in the way; type 2 if there is none.
    pub(crate) fn getlock(
        &mut self,
        fid: u32,
        kind: u8,
        start: u64,
        length: u64,
    ) -> Result<(u8, u64, u64), Errno> {
        let request = Request::Getlock {
            fid,
            kind,
            start,
            length,
            proc_id: 1,
            client_id: "guest".into(),
        };
        expect_reply!(self.rpc(&request), Reply::Getlock { kind, start, length, .. } => (kind, start, length))
    }
}

/// The entries in Rreaddir's data.
fn entries(data: &[u8]) -> Vec<Entry> {
    let mut reader = Reader::new(data);
    let mut entries = Vec::new();
    while reader.remaining() > 0 {
        let qid = Qid {
            kind: cofferdam_p9::wire::QidType::from_bits_retain(reader.u8().unwrap()),
            version: reader.u32().unwrap(),
            path: reader.u64().unwrap(),
        };
        let offset = reader.u64().unwrap();
        let kind = reader.u8().unwrap();
        let len = usize::from(reader.u16().unwrap());
        entries.push(Entry {
            qid,
            offset,
            kind,
            name: reader.take(len).unwrap().to_vec(),
        });
    }
    entries
}
