//! The messages themselves: one table, from which the parser and the serialiser come.

use super::{
    HEADER_BYTES, WireError,
    field::{Field, Reader, Text},
    flags::{GetattrMask, OpenFlags, SetattrMask},
    header,
    types::{Attributes, FsStats, Names, Qid, Qids},
};

macro_rules! messages {
    ($(#[$doc:meta])* $enum:ident { $($(#[$message_doc:meta])* $number:literal $name:ident { $($field:ident: $type:ty),* $(,)? })* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        #[expect(missing_docs, reason = "the fields carry the names of the protocol's description")]
        pub enum $enum<'a> {
            $($(#[$message_doc])* $name { $($field: $type),* },)*
        }

        impl<'a> $enum<'a> {
            /// Parses one whole frame into its tag and message.
            ///
            /// # Errors
            /// The frame is not exactly one message of 9P2000.L.
            pub fn parse(frame: &'a [u8]) -> Result<(u16, Self), WireError> {
                let (kind, tag) = header(frame)?;
                let mut reader = Reader::new(&frame[HEADER_BYTES..]);
                let message = match kind {
                    $($number => Self::$name { $($field: <$type as Field<'a>>::get(&mut reader)?),* },)*
                    other => return Err(WireError::UnknownType(other)),
                };
                reader.finish()?;
                Ok((tag, message))
            }

            /// The message's number in a frame's type field.
            pub fn kind(&self) -> u8 {
                match self {
                    $(Self::$name { .. } => $number,)*
                }
            }

            /// Replaces what `out` holds with the message as one frame.
            ///
            /// # Errors
            /// A field is longer than its length prefix can say.
            pub fn encode(&self, tag: u16, out: &mut Vec<u8>) -> Result<(), WireError> {
                out.clear();
                out.extend_from_slice(&[0; HEADER_BYTES]);
                match self {
                    $(Self::$name { $($field),* } => { $($field.put(out)?;)* })*
                }
                let size = u32::try_from(out.len()).map_err(|_| WireError::FieldTooLong(out.len()))?;
                out[0..4].copy_from_slice(&size.to_le_bytes());
                out[4] = self.kind();
                out[5..7].copy_from_slice(&tag.to_le_bytes());
                Ok(())
            }
        }
    };
}

messages!(
    /// What a client asks.
    #[expect(clippy::large_enum_variant, reason = "a walk's names stay off the heap; requests are not stored")]
    Request {
        /// The file system under a file.
        8 Statfs { fid: u32 }
        /// Open.
        12 Lopen { fid: u32, flags: OpenFlags }
        /// Create a regular file in the directory `fid` and open it as `fid`.
        14 Lcreate { fid: u32, name: Text<'a>, flags: OpenFlags, mode: u32, gid: u32 }
        /// Create a symbolic link.
        16 Symlink { dfid: u32, name: Text<'a>, target: Text<'a>, gid: u32 }
        /// Create a device node, FIFO, socket or regular file.
        18 Mknod { dfid: u32, name: Text<'a>, mode: u32, major: u32, minor: u32, gid: u32 }
        /// Rename the file `fid` stands for.
        20 Rename { fid: u32, dfid: u32, name: Text<'a> }
        /// A symbolic link's target.
        22 Readlink { fid: u32 }
        /// Attributes.
        24 Getattr { fid: u32, mask: GetattrMask }
        /// Change attributes.
        26 Setattr {
            fid: u32,
            valid: SetattrMask,
            mode: u32,
            uid: u32,
            gid: u32,
            size: u64,
            atime_sec: u64,
            atime_nsec: u64,
            mtime_sec: u64,
            mtime_nsec: u64,
        }
        /// Make `newfid` read one extended attribute, or with an empty name the list of them.
        30 Xattrwalk { fid: u32, newfid: u32, name: Text<'a> }
        /// Make `fid` take an extended attribute's value, set when it is clunked.
        32 Xattrcreate { fid: u32, name: Text<'a>, size: u64, flags: u32 }
        /// Directory entries from an offset on.
        40 Readdir { fid: u32, offset: u64, count: u32 }
        /// Bring to the disk.
        50 Fsync { fid: u32, datasync: u32 }
        /// Take or give back a record lock.
        52 Lock {
            fid: u32,
            kind: u8,
            flags: u32,
            start: u64,
            length: u64,
            proc_id: u32,
            client_id: Text<'a>,
        }
        /// Who would stand in a lock's way.
        54 Getlock { fid: u32, kind: u8, start: u64, length: u64, proc_id: u32, client_id: Text<'a> }
        /// Create a hard link.
        70 Link { dfid: u32, fid: u32, name: Text<'a> }
        /// Create a directory.
        72 Mkdir { dfid: u32, name: Text<'a>, mode: u32, gid: u32 }
        /// Rename by names.
        74 Renameat { olddirfid: u32, oldname: Text<'a>, newdirfid: u32, newname: Text<'a> }
        /// Remove by name.
        76 Unlinkat { dirfid: u32, name: Text<'a>, flags: u32 }
        /// Agree on a version and the largest message, and forget everything before.
        100 Version { msize: u32, version: Text<'a> }
        /// Ask for an authentication file.
        102 Auth { afid: u32, uname: Text<'a>, aname: Text<'a>, n_uname: u32 }
        /// Get the root of an export.
        104 Attach { fid: u32, afid: u32, uname: Text<'a>, aname: Text<'a>, n_uname: u32 }
        /// Forget a request.
        108 Flush { oldtag: u16 }
        /// Go from `fid` along names to `newfid`.
        110 Walk { fid: u32, newfid: u32, names: Names<'a> }
        /// Read.
        116 Read { fid: u32, offset: u64, count: u32 }
        /// Write.
        118 Write { fid: u32, offset: u64, data: &'a [u8] }
        /// Forget a fid.
        120 Clunk { fid: u32 }
        /// Remove the file `fid` stands for and forget the fid.
        122 Remove { fid: u32 }
    }
);

messages!(
    /// What the server answers.
    Reply {
        /// The request failed, with this Linux error number.
        7 Lerror { ecode: u32 }
        /// To Tstatfs.
        9 Statfs { stats: FsStats }
        /// To Tlopen.
        13 Lopen { qid: Qid, iounit: u32 }
        /// To Tlcreate.
        15 Lcreate { qid: Qid, iounit: u32 }
        /// To Tsymlink.
        17 Symlink { qid: Qid }
        /// To Tmknod.
        19 Mknod { qid: Qid }
        /// To Trename.
        21 Rename {}
        /// To Treadlink.
        23 Readlink { target: Text<'a> }
        /// To Tgetattr.
        25 Getattr { attributes: Attributes }
        /// To Tsetattr.
        27 Setattr {}
        /// To Txattrwalk: the value's size in bytes.
        31 Xattrwalk { size: u64 }
        /// To Txattrcreate.
        33 Xattrcreate {}
        /// To Treaddir: entries of `qid[13] offset[8] type[1] name[s]`.
        41 Readdir { data: &'a [u8] }
        /// To Tfsync.
        51 Fsync {}
        /// To Tlock: a [`super::LockStatus`].
        53 Lock { status: u8 }
        /// To Tgetlock.
        55 Getlock { kind: u8, start: u64, length: u64, proc_id: u32, client_id: Text<'a> }
        /// To Tlink.
        71 Link {}
        /// To Tmkdir.
        73 Mkdir { qid: Qid }
        /// To Trenameat.
        75 Renameat {}
        /// To Tunlinkat.
        77 Unlinkat {}
        /// To Tversion.
        101 Version { msize: u32, version: Text<'a> }
        /// To Tattach.
        105 Attach { qid: Qid }
        /// To Tflush.
        109 Flush {}
        /// To Twalk: as many as there were names, or fewer if a later one was not found.
        111 Walk { qids: Qids }
        /// To Tread.
        117 Read { data: &'a [u8] }
        /// To Twrite: the bytes written.
        119 Write { count: u32 }
        /// To Tclunk.
        121 Clunk {}
        /// To Tremove.
        123 Remove {}
    }
);
