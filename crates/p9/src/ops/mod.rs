//! One request to one reply. Everything here may block and runs on a blocking thread.

mod attributes;
mod create;
mod data;
mod directory;
mod locks;
mod names;
mod walk;
mod xattr;

use std::{panic::AssertUnwindSafe, sync::Arc};

use rustix::io::{Errno, Result};

use crate::{
    buffer::{Buffer, Buffers},
    fid::State,
    session::Session,
    wire::{DATA_REPLY_BYTES, Reply, Request, Text, WireError},
};

/// The reply to a frame, whatever the frame is.
pub(crate) fn answer(session: &Arc<Session>, tag: u16, frame: &[u8], buffers: &Arc<Buffers>) -> Buffer {
    let answered = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let request = match Request::parse(frame) {
            Ok((_, request)) => request,
            // The client falls back to another message where it knows one.
            Err(WireError::UnknownType(_)) => return Err(Errno::OPNOTSUPP),
            Err(error) => {
                tracing::debug!(tag, %error, "a 9P request that is no message");
                return Err(Errno::PROTO);
            }
        };
        let reply = ReplySlot {
            tag,
            msize: session.msize() as usize,
            buffers,
        };
        dispatch(session, request, &reply)
    }));
    let errno = match answered {
        Ok(Ok(reply)) => return reply,
        Ok(Err(errno)) => errno,
        Err(_) => {
            tracing::error!(tag, "a 9P request made the server panic; answered with EIO");
            Errno::IO
        }
    };
    encode(
        tag,
        &Reply::Lerror {
            ecode: errno.raw_os_error().unsigned_abs(),
        },
        buffers,
    )
}

/// A small reply as a frame.
pub(crate) fn encode(tag: u16, reply: &Reply<'_>, buffers: &Arc<Buffers>) -> Buffer {
    let mut frame = Vec::with_capacity(256);
    if reply.encode(tag, &mut frame).is_err() {
        let too_long = Reply::Lerror {
            ecode: Errno::OVERFLOW.raw_os_error().unsigned_abs(),
        };
        too_long
            .encode(tag, &mut frame)
            .expect("invariant: an error reply has no field of variable length");
    }
    let mut buffer = buffers.take(frame.len());
    buffer.copy_from_slice(&frame);
    buffer
}

/// Where a request puts its reply.
struct ReplySlot<'a> {
    tag: u16,
    msize: usize,
    buffers: &'a Arc<Buffers>,
}

impl ReplySlot<'_> {
    /// A reply of fixed size or with a short text.
    fn with(&self, reply: &Reply<'_>) -> Result<Buffer> {
        let buffer = encode(self.tag, reply, self.buffers);
        // Only a link's target can be that long, and only after a tiny message size was agreed on.
        if buffer.len() > self.msize {
            Err(Errno::NAMETOOLONG)
        } else {
            Ok(buffer)
        }
    }

    /// A reply of up to `count` bytes of data, which `fill` puts straight into the frame, returning how many.
    fn data(&self, kind: u8, count: u32, fill: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<Buffer> {
        let room = self.msize.saturating_sub(DATA_REPLY_BYTES);
        let count = usize::try_from(count).map_or(room, |count| count.min(room));
        let mut frame = self.buffers.take(DATA_REPLY_BYTES + count);
        let filled = fill(&mut frame[DATA_REPLY_BYTES..])?.min(count);
        frame.truncate(DATA_REPLY_BYTES + filled);
        let size = frame.len() as u32;
        frame[0..4].copy_from_slice(&size.to_le_bytes());
        frame[4] = kind;
        frame[5..7].copy_from_slice(&self.tag.to_le_bytes());
        frame[7..11].copy_from_slice(&(filled as u32).to_le_bytes());
        Ok(frame)
    }
}

/// Rread's and Rreaddir's numbers.
const RREAD: u8 = 117;
const RREADDIR: u8 = 41;

fn dispatch(session: &Arc<Session>, request: Request<'_>, reply: &ReplySlot<'_>) -> Result<Buffer> {
    if session.msize() == 0 {
        return Err(Errno::PROTO);
    }
    let fids = session.fids();
    match request {
        Request::Auth { .. } => Err(Errno::OPNOTSUPP),
        // Both are answered where the stream is read.
        Request::Version { .. } | Request::Flush { .. } => Err(Errno::PROTO),
        Request::Attach {
            fid, aname, n_uname, ..
        } => reply.with(&Reply::Attach {
            qid: walk::attach(session, fid, aname, n_uname)?,
        }),
        Request::Walk { fid, newfid, names } => reply.with(&Reply::Walk {
            qids: walk::walk(session, fid, newfid, names.as_slice())?,
        }),
        Request::Clunk { fid } => {
            let fid = fids.remove(fid)?;
            let pending = std::mem::take(&mut *fid.state());
            if let State::XattrWrite(write) = pending {
                xattr::commit(&fid, &write)?;
            }
            drop(fid);
            reply.with(&Reply::Clunk {})
        }
        Request::Lopen { fid, flags } => {
            let qid = data::open(&*fids.get(fid)?, flags)?;
            reply.with(&Reply::Lopen {
                qid,
                iounit: data::iounit(session),
            })
        }
        Request::Lcreate {
            fid,
            name,
            flags,
            mode,
            gid,
        } => {
            let qid = create::file(session, fid, name, flags, mode, gid)?;
            reply.with(&Reply::Lcreate {
                qid,
                iounit: data::iounit(session),
            })
        }
        Request::Read { fid, offset, count } => {
            let fid = fids.get(fid)?;
            reply.data(RREAD, count, |room| data::read(&fid, offset, room))
        }
        Request::Readdir { fid, offset, count } => {
            let fid = fids.get(fid)?;
            reply.data(RREADDIR, count, |room| directory::read(&fid, offset, room))
        }
        Request::Write { fid, offset, data } => {
            let count = data::write(&*fids.get(fid)?, offset, data)?;
            reply.with(&Reply::Write { count })
        }
        Request::Fsync { fid, datasync } => {
            data::sync(&*fids.get(fid)?, datasync != 0)?;
            reply.with(&Reply::Fsync {})
        }
        Request::Getattr { fid, .. } => reply.with(&Reply::Getattr {
            attributes: attributes::get(&*fids.get(fid)?)?,
        }),
        Request::Setattr {
            fid,
            valid,
            mode,
            uid,
            gid,
            size,
            atime_sec,
            atime_nsec,
            mtime_sec,
            mtime_nsec,
        } => {
            let change = attributes::Change {
                valid,
                mode,
                uid,
                gid,
                size,
                atime: (atime_sec, atime_nsec),
                mtime: (mtime_sec, mtime_nsec),
            };
            attributes::set(&*fids.get(fid)?, &change)?;
            reply.with(&Reply::Setattr {})
        }
        Request::Statfs { fid } => reply.with(&Reply::Statfs {
            stats: attributes::statfs(&*fids.get(fid)?)?,
        }),
        Request::Readlink { fid } => {
            let target = rustix::fs::readlinkat(&**fids.get(fid)?.node(), c"", Vec::new())
                // What the system says of a handle that is no symbolic link.
                .map_err(|errno| {
                    if errno == Errno::NOENT {
                        Errno::INVAL
                    } else {
                        errno
                    }
                })?;
            reply.with(&Reply::Readlink {
                target: Text(target.as_bytes()),
            })
        }
        Request::Mkdir {
            dfid,
            name,
            mode,
            gid,
        } => reply.with(&Reply::Mkdir {
            qid: create::directory(&*fids.get(dfid)?, name, mode, gid)?,
        }),
        Request::Symlink {
            dfid,
            name,
            target,
            gid,
        } => reply.with(&Reply::Symlink {
            qid: create::symlink(&*fids.get(dfid)?, name, target, gid)?,
        }),
        Request::Mknod {
            dfid,
            name,
            mode,
            major,
            minor,
            gid,
        } => {
            let allow_devices = session.options().allow_device_nodes;
            let qid = create::node(&*fids.get(dfid)?, name, mode, (major, minor), gid, allow_devices)?;
            reply.with(&Reply::Mknod { qid })
        }
        Request::Link { dfid, fid, name } => {
            names::link(&*fids.get(dfid)?, &*fids.get(fid)?, name)?;
            reply.with(&Reply::Link {})
        }
        Request::Rename { fid, dfid, name } => {
            names::rename(&*fids.get(fid)?, &*fids.get(dfid)?, name)?;
            reply.with(&Reply::Rename {})
        }
        Request::Renameat {
            olddirfid,
            oldname,
            newdirfid,
            newname,
        } => {
            names::renameat(&*fids.get(olddirfid)?, oldname, &*fids.get(newdirfid)?, newname)?;
            reply.with(&Reply::Renameat {})
        }
        Request::Unlinkat { dirfid, name, flags } => {
            names::unlinkat(&*fids.get(dirfid)?, name, flags)?;
            reply.with(&Reply::Unlinkat {})
        }
        Request::Remove { fid } => {
            // The fid is gone even if the removal fails (remove(5)).
            names::remove(&*fids.remove(fid)?)?;
            reply.with(&Reply::Remove {})
        }
        Request::Xattrwalk { fid, newfid, name } => reply.with(&Reply::Xattrwalk {
            size: xattr::walk(session, fid, newfid, name)?,
        }),
        Request::Xattrcreate {
            fid,
            name,
            size,
            flags,
        } => {
            xattr::create(&*fids.get(fid)?, name, size, flags)?;
            reply.with(&Reply::Xattrcreate {})
        }
        Request::Lock {
            fid,
            kind,
            flags: _,
            start,
            length,
            proc_id,
            client_id: _,
        } => {
            // A client that would wait asks again by itself; waiting here would hold a thread.
            let status = locks::set(&*fids.get(fid)?, kind, start, length, proc_id)?;
            reply.with(&Reply::Lock {
                status: status.to_wire(),
            })
        }
        Request::Getlock {
            fid,
            kind,
            start,
            length,
            proc_id,
            client_id,
        } => {
            let (kind, start, length, proc_id) = locks::test(&*fids.get(fid)?, kind, start, length, proc_id)?;
            reply.with(&Reply::Getlock {
                kind,
                start,
                length,
                proc_id,
                client_id,
            })
        }
    }
}
