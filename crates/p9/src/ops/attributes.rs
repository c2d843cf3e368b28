//! Tgetattr, Tsetattr, Tstatfs.

use rustix::{
    fs::{AtFlags, Statx, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT},
    io::{Errno, Result},
};

use crate::{
    fid::Fid,
    ops::data,
    wire::{Attributes, FsStats, GetattrMask, NO_UID, SetattrMask},
};

/// The attributes of what a fid stands for, unlinked or not.
pub(super) fn get(fid: &Fid) -> Result<Attributes> {
    let stat = fid.node().stat()?;
    from_stat(fid, &stat)
}

fn from_stat(fid: &Fid, stat: &Statx) -> Result<Attributes> {
    // Times before the epoch travel as their two's complement, which is how the Linux client reads them.
    let seconds = |sec: i64| sec as u64;
    Ok(Attributes {
        valid: GetattrMask::BASIC | GetattrMask::BIRTH_TIME,
        qid: fid.exported().qids().qid(stat)?,
        mode: u32::from(stat.stx_mode),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        nlink: u64::from(stat.stx_nlink),
        rdev: kernel_device(stat.stx_rdev_major, stat.stx_rdev_minor),
        size: stat.stx_size,
        blksize: u64::from(stat.stx_blksize),
        blocks: stat.stx_blocks,
        atime_sec: seconds(stat.stx_atime.tv_sec),
        atime_nsec: u64::from(stat.stx_atime.tv_nsec),
        mtime_sec: seconds(stat.stx_mtime.tv_sec),
        mtime_nsec: u64::from(stat.stx_mtime.tv_nsec),
        ctime_sec: seconds(stat.stx_ctime.tv_sec),
        ctime_nsec: u64::from(stat.stx_ctime.tv_nsec),
        btime_sec: seconds(stat.stx_btime.tv_sec),
        btime_nsec: u64::from(stat.stx_btime.tv_nsec),
        generation: 0,
        data_version: 0,
    })
}

/// A device number as the kernel packs it into 32 bits; the client unpacks it that way.
fn kernel_device(major: u32, minor: u32) -> u64 {
    u64::from((minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12)
}

/// What a Tsetattr asks for. Times are seconds and nanoseconds.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) valid: SetattrMask,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) atime: (u64, u64),
    pub(super) mtime: (u64, u64),
}

/// Changes attributes. The owner goes first, since changing it takes set-user-ID bits away that the mode may want
/// back; the times go last, since cutting the file moves them.
pub(super) fn set(fid: &Fid, change: &Change) -> Result<()> {
    fid.exported().require_change(fid.node())?;
    let wants = |bits| change.valid.intersects(bits);
    let node = fid.node();
    let times = times(change)?;
    let given = |bit, id| {
        if wants(bit) && id != NO_UID {
            Some(id)
        } else {
            None
        }
    };
    let (uid, gid) = (
        given(SetattrMask::UID, change.uid),
        given(SetattrMask::GID, change.gid),
    );
    if uid.is_some() || gid.is_some() {
        node.chown(uid, gid)?;
    }
    if wants(SetattrMask::MODE) {
        node.chmod(change.mode)?;
    }
    if wants(SetattrMask::SIZE) {
        data::truncate(fid, change.size)?;
    }
    if let Some(times) = times {
        rustix::fs::utimensat(&**node, c"", &times, AtFlags::EMPTY_PATH)?;
    } else if change.valid == SetattrMask::CTIME {
        // The only way to move the change time and nothing else.
        node.chown(None, None)?;
    }
    Ok(())
}

fn times(change: &Change) -> Result<Option<Timestamps>> {
    let time = |touch, set, (sec, nsec): (u64, u64)| {
        if !change.valid.contains(touch) {
            return Ok(Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            });
        }
        if !change.valid.contains(set) {
            return Ok(Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            });
        }
        match u32::try_from(nsec) {
            // Larger numbers of nanoseconds have other meanings to the system.
            Ok(nsec) if nsec < 1_000_000_000 => Ok(Timespec {
                tv_sec: sec as i64,
                tv_nsec: nsec.into(),
            }),
            _ => Err(Errno::INVAL),
        }
    };
    if !change.valid.intersects(SetattrMask::ATIME | SetattrMask::MTIME) {
        return Ok(None);
    }
    Ok(Some(Timestamps {
        last_access: time(SetattrMask::ATIME, SetattrMask::ATIME_SET, change.atime)?,
        last_modification: time(SetattrMask::MTIME, SetattrMask::MTIME_SET, change.mtime)?,
    }))
}

/// The file system under what a fid stands for.
pub(super) fn statfs(fid: &Fid) -> Result<FsStats> {
    let kind = rustix::fs::fstatfs(&**fid.node())?.f_type;
    let stats = rustix::fs::fstatvfs(&**fid.node())?;
    Ok(FsStats {
        kind: kind as u32,
        bsize: u32::try_from(stats.f_bsize).unwrap_or(u32::MAX),
        blocks: stats.f_blocks,
        bfree: stats.f_bfree,
        bavail: stats.f_bavail,
        files: stats.f_files,
        ffree: stats.f_ffree,
        fsid: stats.f_fsid,
        namelen: u32::try_from(stats.f_namemax).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_packed_as_the_kernel_unpacks_them() {
        assert_eq!(kernel_device(8, 1), 0x801);
        assert_eq!(kernel_device(0xfff, 0xf_ffff), 0xffff_ffff);
        assert_eq!(kernel_device(259, 0x1_2345), 0x1231_0345);
    }
}
