//! An initramfs archive in the "newc" cpio format (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Written here rather than by cpio(1) so that the same input gives the same bytes on every host (owner, times and
//! inode numbers are fixed), device nodes need no root, and nothing has to be laid out on disk first.

use std::io::{self, Write};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Parents must be written before what they hold.
pub(crate) struct Archive<W: Write> {
    out: W,
    next_inode: u32,
    written: u64,
}

struct Header<'a> {
    name: &'a str,
    mode: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub(crate) fn new(out: W) -> Self {
        Archive {
            out,
            next_inode: 1,
            written: 0,
        }
    }

    /// Adds a directory; `name` is relative, without `./`.
    pub(crate) fn directory(&mut self, name: &str, permissions: u32) -> io::Result<()> {
        self.header(&Header {
            name,
            mode: DIRECTORY | permissions,
            links: 2,
            size: 0,
            device: (0, 0),
        })
    }

    /// Adds a regular file with its content.
    pub(crate) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        let too_large = || {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{name}: newc holds files below 4 GiB"),
            )
        };
        let size = u32::try_from(content.len()).map_err(|_| too_large())?;
        self.header(&Header {
            name,
            mode: REGULAR | permissions,
            links: 1,
            size,
            device: (0, 0),
        })?;
        self.write(content)?;
        self.pad()
    }

    /// Adds a character device.
    pub(crate) fn character_device(
        &mut self,
        name: &str,
        permissions: u32,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        let mode = CHARACTER_DEVICE | permissions;
        self.header(&Header {
            name,
            mode,
            links: 1,
            size: 0,
            device: (major, minor),
        })
    }

    /// Ends the archive and gives its output back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.next_inode = 0;
        self.header(&Header {
            name: TRAILER,
            mode: 0,
            links: 1,
            size: 0,
            device: (0, 0),
        })?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn header(&mut self, header: &Header<'_>) -> io::Result<()> {
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let name_size = header.name.len() as u32 + 1;
        let fields = [
            self.next_inode,
            header.mode,
            0,
            0,
            header.links,
            0,
            header.size,
            0,
            0,
            header.device.0,
            header.device.1,
            name_size,
            0,
        ];
        self.next_inode += 1;
        let mut text = String::from(MAGIC);
        for field in fields {
            text.push_str(&format!("{field:08X}"));
        }
        self.write(text.as_bytes())?;
        self.write(header.name.as_bytes())?;
        self.write(&[0])?;
        self.pad()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Names and contents end on a multiple of four bytes, counted from the archive's start.
    fn pad(&mut self) -> io::Result<()> {
        let over = (self.written % 4) as usize;
        if over == 0 {
            Ok(())
        } else {
            self.write(&[0; 3][..4 - over])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(archive: &[u8], entry_at: usize, index: usize) -> u32 {
        let at = entry_at + 6 + 8 * index;
        u32::from_str_radix(std::str::from_utf8(&archive[at..at + 8]).unwrap(), 16).unwrap()
    }

    #[test]
    fn a_file_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::new(Vec::new());
        archive.file("init", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(field(&bytes, 0, 0), 1, "inode");
        assert_eq!(field(&bytes, 0, 1), 0o100_755, "mode");
        assert_eq!((field(&bytes, 0, 2), field(&bytes, 0, 3)), (0, 0), "owner");
        assert_eq!(field(&bytes, 0, 4), 1, "links");
        assert_eq!(field(&bytes, 0, 5), 0, "time");
        assert_eq!(field(&bytes, 0, 6), 5, "size");
        assert_eq!(field(&bytes, 0, 11), 5, "name with its NUL");
        assert_eq!(
            &bytes[110..116],
            b"init\0\0",
            "the name, padded to a multiple of four"
        );
        assert_eq!(&bytes[116..124], b"hello\0\0\0", "the content, padded likewise");
        assert_eq!(&bytes[124..130], b"070701", "the trailer follows at once");
        assert_eq!(&bytes[124 + 110..124 + 121], b"TRAILER!!!\0");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_device_keeps_its_number() {
        let mut archive = Archive::new(Vec::new());
        archive.character_device("dev/console", 0o600, 5, 1).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(field(&bytes, 0, 1), 0o020_600);
        assert_eq!((field(&bytes, 0, 9), field(&bytes, 0, 10)), (5, 1));
        assert_eq!(field(&bytes, 0, 6), 0);
    }

    #[test]
    fn a_directory_has_two_links_and_inodes_differ() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("dev", 0o755).unwrap();
        archive.directory("proc", 0o555).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(field(&bytes, 0, 1), 0o040_755);
        assert_eq!(field(&bytes, 0, 4), 2);
        let second = 116; // 110 bytes and `dev` with its NUL, padded
        assert_eq!(field(&bytes, second, 0), 2);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let write = || {
            let mut archive = Archive::new(Vec::new());
            archive.directory("etc", 0o755).unwrap();
            archive.file("etc/x", 0o644, b"1").unwrap();
            archive.finish().unwrap()
        };
        assert_eq!(write(), write());
    }
}
